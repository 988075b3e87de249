"""What a config costs: parameters, multiply-adds, and time and peak memory of a training step on this machine.

Of one config, or of two side by side. Made-up pictures go through the config's own train pipeline and a step of its
model and optimizer, so no data and no weights are needed.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence

import torch

from nfnet_mm.errors import UserError
from nfnet_mm.named_configs import find_config
from nfnet_mm.training_cost import Result, compare

from .command_line import CFG_OPTIONS, CONFIG_HELP


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument('config', help=CONFIG_HELP)
    parser.add_argument('--against', metavar='CONFIG', help='another, measured in turns with it')
    parser.add_argument('--batch-size', type=int, help="images of a step (default: the config's, for one GPU)")
    parser.add_argument(
        '--size', type=int, nargs=2, metavar=('HEIGHT', 'WIDTH'), help="of the images (default: the train pipeline's)"
    )
    parser.add_argument('--pairs', type=int, default=5, help='measured steps of each config (default: 5)')
    parser.add_argument('--cfg-options', **CFG_OPTIONS)


def run(args: argparse.Namespace) -> None:
    """Measure, and print the table."""
    for name, value in (
        ('--pairs', args.pairs),
        ('--batch-size', args.batch_size),
        *(('--size', n) for n in args.size or ()),
    ):
        if value is not None and value < 1:
            raise UserError(f'{name} {value} must be a positive integer')
    names = [args.config, *([args.against] if args.against else [])]
    paths = [str(find_config(name).path) for name in names]
    size = tuple(args.size) if args.size else None
    results = compare(paths, args.batch_size, size, args.pairs, args.cfg_options)
    print('\n'.join(table([find_config(name).path.stem for name in names], results)))
    if all(result.failure for result in results):
        raise UserError('no training step could be measured')


_ROWS: tuple[tuple[str, Callable[[Result], float | None], str], ...] = (
    ('parameters (M)', lambda r: r.parameters / 1e6, '.2f'),
    ('of these trained (M)', lambda r: r.trained / 1e6, '.2f'),
    ('multiply-adds, forward, an image (G)', lambda r: r.macs / 1e9, '.2f'),
    ('training step (s)', lambda r: r.step, '.3f'),
    ('images a second', lambda r: r.batch / r.step if r.step else None, '.2f'),
    ('peak memory (GB)', lambda r: r.memory / 1e9 if r.memory else None, '.2f'),
)


def table(names: Sequence[str], results: Sequence[Result]) -> Iterator[str]:
    """The lines of the report."""
    width = max(10, *map(len, names))
    two = len(results) == 2

    def line(label: str, cells: Sequence[str], ratio: str = '') -> str:
        return f'{label:38}' + ''.join(f'{cell:>{width + 2}}' for cell in cells) + (f'{ratio:>9}' if two else '')

    yield line('', names, 'ratio').rstrip()
    yield line('pictures', [' x '.join(map(str, r.size)) if r.size else '-' for r in results]).rstrip()
    yield line('batch', [str(r.batch) if r.batch else '-' for r in results]).rstrip()
    for label, value, form in _ROWS:
        figures = [value(result) or None for result in results]
        cells = ['-' if figure is None else format(figure, form) for figure in figures]
        ratio = f'{figures[0] / figures[1]:.2f}' if two and figures[0] and figures[1] else ''
        yield line(label, cells, ratio).rstrip()
    yield ''
    steps = max(len(result.seconds) for result in results)
    if torch.cuda.is_available():
        where = f'{torch.cuda.get_device_name()}, synchronised; memory is what torch allocated'
    else:
        where = f'the CPU, {torch.get_num_threads()} threads; memory is what the process grew by'
    yield f'Median of {steps} steps on {where}.'
    yield 'A step is forward, backward and update, without loading, hooks or accumulation; the weights are random.'
    for name, result in zip(names, results):
        if result.uncounted:
            yield f'{name}: not among the multiply-adds: {", ".join(result.uncounted)}.'
        if result.failure:
            yield f'{name}: not measured: {result.failure}.'
