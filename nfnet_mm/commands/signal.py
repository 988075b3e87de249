"""Signal propagation plots: mean and variance of what leaves each residual block, measured and predicted.

A model is a network of this package (nf_resnet50), the dict of a registered backbone ("dict(type='mmdet.ResNet',
depth=50)") or a config, and MODEL@CHECKPOINT has its weights from a file. Without, it is as initialised: SkipInit
scalars and gains that begin at zero are then 1, unless --as-built; BatchNorm takes the batch's statistics.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from nfnet_mm.analysis import signal_figures
from nfnet_mm.analysis.signal_blocks import open_branches
from nfnet_mm.analysis.signal_plot import draw
from nfnet_mm.analysis.signal_propagation import BlockSignal, signal_propagation, write_csv
from nfnet_mm.errors import UserError, check_positive, did_you_mean, make_folder
from nfnet_mm.inference import find_images
from nfnet_mm.run.device import usable_device
from nfnet_mm.signal_models import build_backbone, noise, pictures

_SIZE, _FIGURE_SIZE = 224, 512  # px; the papers' figures have 512


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument('models', nargs='*', metavar='MODEL', help='one or more, drawn in one figure')
    parser.add_argument(
        '--figure', metavar='N', help=f'a figure of the NF-ResNets paper: {", ".join(signal_figures.FIGURES)}'
    )
    parser.add_argument('--images', nargs='+', help='image files, folders or patterns (default: Gaussian noise)')
    parser.add_argument('--batch-size', type=int, help='images (default: 4 of noise, 1 for --figure)')
    parser.add_argument('--size', type=int, help=f'pixels (default: {_SIZE}, {_FIGURE_SIZE} for --figure)')
    parser.add_argument('--seed', type=int, default=0, help='of weights and noise (default: 0)')
    parser.add_argument('--device', default=None, help='cpu, cuda, ... (default: the GPU if there is one)')
    parser.add_argument('--as-built', action='store_true', help='leave SkipInit scalars of zero as they are')
    parser.add_argument('--log', action='store_true', help='a logarithmic axis')
    parser.add_argument('--out', required=True, metavar='FOLDER', help='for signal.png and signal.csv')


def run(args: argparse.Namespace) -> None:
    """Measure, and write the files."""
    if bool(args.models) == bool(args.figure):
        raise UserError('name one or more models, such as nf_resnet50, or a --figure')
    figure = None
    if args.figure:
        figure = signal_figures.FIGURES.get(args.figure)
        if figure is None:
            known = ', '.join(signal_figures.FIGURES)
            raise UserError(
                f'--figure {args.figure!r} is none.{did_you_mean(args.figure, signal_figures.FIGURES)} Known: {known}'
            )
    size = check_positive('--size', args.size if args.size is not None else _FIGURE_SIZE if figure else _SIZE)
    batch = check_positive('--batch-size', args.batch_size if args.batch_size is not None else 1 if figure else 4)
    folder, device = make_folder(args.out, 'output folder'), usable_device(args.device)
    images = noise(batch, size, args.seed) if args.images is None else pictures(find_images(args.images), size, batch)
    name = f'figure{args.figure}' if figure else 'signal'
    signals = []
    for label, model in _figure(figure, args.seed) if figure else _models(args.models, args.seed):
        signals.append((label, _measured(model.to(device), images.to(device), args.as_built)))
        print(_line(*signals[-1]), flush=True)
        del model
    files = [folder / f'{name}.csv', folder / f'{name}.png']
    write_csv(files[0], signals)
    draw(
        files[1],
        signals,
        f'Figure {args.figure}: {figure.what}' if figure else '',
        args.log or bool(figure and figure.log),
    )
    print('written:', ', '.join(map(str, files)))


def _figure(figure: signal_figures.Figure, seed: int) -> Iterator[tuple[str, nn.Module]]:
    for label in figure.networks:
        yield label, signal_figures.build(figure, label, seed)


def _models(names: list[str], seed: int) -> Iterator[tuple[str, nn.Module]]:
    for name in names:
        torch.manual_seed(seed)
        yield Path(name).stem if Path(name).suffix == '.py' else name, build_backbone(name)


def _measured(model: nn.Module, images: Tensor, as_built: bool) -> list[BlockSignal]:
    if as_built or not model.training:  # in eval mode: from a checkpoint
        return signal_propagation(model, images)
    with open_branches(model):
        return signal_propagation(model, images)


def _line(label: str, rows: list[BlockSignal]) -> str:
    first, last = rows[0], rows[-1]
    ratios = [row.avg_var / row.predicted_var for row in rows if row.predicted_var == row.predicted_var]
    said = f', measured / predicted {min(ratios):.2f} to {max(ratios):.2f}' if ratios else ''
    return (
        f'{label}: {len(rows)} blocks, variance {first.avg_var:.3g} at the first, {last.avg_var:.3g} at the last{said}'
    )
