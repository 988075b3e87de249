"""What a finished demo run shows: pictures, curves, figures, and where they are."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from .pictures import draw_curves, read_scalars

if TYPE_CHECKING:
    from mmengine.runner import Runner

    from .tasks import Demo


def _scalars(runner: 'Runner') -> dict[str, tuple[list, list]]:
    return read_scalars(Path(runner.log_dir) / 'vis_data' / 'scalars.json')


def predictions(runner: 'Runner', count: int) -> Iterator[tuple[np.ndarray, Any, Sequence[str]]]:
    """Run the trained model on the first ``count`` validation pictures.

    Yields: the uint8 (H, W, 3) RGB picture, the framework's data sample with truth and prediction, the class names.
    """
    loader = runner.val_dataloader
    runner.model.eval()
    for batch in loader:
        pixels = batch['inputs']
        with torch.no_grad():
            results = runner.model.test_step(batch)
        for image, sample in zip(pixels, results[:count]):
            # every framework loads BGR
            yield image.numpy()[::-1].transpose(1, 2, 0), sample, loader.dataset.metainfo.get('classes')
        count -= len(results)
        if count <= 0:
            return


def draw(runner: 'Runner', demo: 'Demo', folder: Path, count: int) -> None:
    """Draw the trained model's predictions for the first ``count`` validation pictures, and the training's curves.

    The PNGs of an earlier run in the folder are replaced.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob('*.png'):
        old.unlink()
    demo.draw(runner, folder, count)
    draw_curves(folder / 'curves.png', _scalars(runner), demo.curves)


def result(runner: 'Runner', demo: 'Demo') -> str:
    """The run's last figures in one line."""
    curves = _scalars(runner)
    known = [(text, scale * curves[name][1][-1]) for name, (text, scale) in demo.metrics.items() if name in curves]
    figures = [text.format(value) for text, value in known]
    return f'{", ".join(figures)} on {len(runner.val_dataloader.dataset)} validation pictures'


def summary(runner: 'Runner', demo: 'Demo', pictures: Path) -> str:
    """The last lines of the demo: where the weights, the log and the pictures are, and the figures."""
    weights = Path(runner.work_dir, 'last_checkpoint').read_text().strip()
    return (
        f'weights:  {weights}\n'
        f'log:      {Path(runner.log_dir) / runner.timestamp}.log\n'
        f'pictures: {pictures}/ (predictions, and curves.png)\n'
        f'result:   {result(runner, demo)}'
    )
