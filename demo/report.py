"""What a finished demo run shows: pictures, curves, figures, and where they are."""

from pathlib import Path

import torch

from .pictures import draw_curves, read_scalars

__all__ = ['draw', 'predictions', 'result', 'summary']


def _scalars(runner):
    return read_scalars(Path(runner.log_dir) / 'vis_data' / 'scalars.json')


def predictions(runner, count):
    """Run the trained model on the first ``count`` validation pictures.

    Yields:
        tuple: the uint8 (H, W, 3) RGB picture, the framework's data sample with truth and prediction, the class names.
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


def draw(runner, demo, folder, count):
    """Draw the trained model's predictions for the first ``count`` validation pictures, and the training's curves.

    Args:
        runner (mmengine.runner.Runner): After training.
        demo (Demo): The task.
        folder (pathlib.Path): Where the PNGs go; those of an earlier run are replaced.
        count (int): How many validation pictures to draw.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob('*.png'):
        old.unlink()
    demo.draw(runner, folder, count)
    draw_curves(folder / 'curves.png', _scalars(runner), demo.curves)


def result(runner, demo):
    """The run's last figures in one line."""
    curves = _scalars(runner)
    figures = [
        text.format(scale * curves[name][1][-1]) for name, (text, scale) in demo.metrics.items() if name in curves
    ]
    return f'{", ".join(figures)} on {len(runner.val_dataloader.dataset)} validation pictures'


def summary(runner, demo, pictures):
    """The last lines of the demo: where the weights, the log and the pictures are, and the figures."""
    weights = Path(runner.work_dir, 'last_checkpoint').read_text().strip()
    log = Path(runner.log_dir) / f'{runner.timestamp}.log'
    return '\n'.join(
        [
            f'weights:  {weights}',
            f'log:      {log}',
            f'pictures: {pictures}/ (predictions, and curves.png)',
            f'result:   {result(runner, demo)}',
        ]
    )
