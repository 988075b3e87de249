"""The pictures a demo run ends with: predictions beside the truth, and the training's curves."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np


@contextmanager
def _figure(path: Path, rows: int, columns: int, **options: Any) -> Iterator[tuple[Any, Any, np.ndarray]]:
    """(pyplot, figure, (rows, columns) axes) to draw on; what is drawn is then written as a PNG."""
    import matplotlib

    matplotlib.use('Agg')
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(rows, columns, squeeze=False, **options)
    yield pyplot, figure, axes
    figure.savefig(path, dpi=80)
    pyplot.close(figure)


def _show(axis: Any, title: str, picture: np.ndarray, *args: Any, **options: Any) -> Any:
    axis.set_title(title)
    axis.axis('off')
    return axis.imshow(picture, *args, interpolation='nearest', **options)


def draw_prediction(
    path: Path, picture: np.ndarray, panels: Mapping[str, Mapping[str, np.ndarray]], names: Sequence[str]
) -> None:
    """Write one PNG: the picture once per panel, with that panel's instances on it.

    Args:
        path: the file.
        picture: uint8 (H, W, 3) RGB.
        panels: by title, the instances: ``boxes`` (N, 4) as x1, y1, x2, y2 in pixels, ``labels`` (N,), boolean
            ``masks`` (N, H, W) and, for predictions, ``scores`` (N,).
        names: what the labels stand for.
    """
    with _figure(path, 1, len(panels), figsize=(4.5 * len(panels), 4.9)) as (plt, figure, axes):
        colours = plt.get_cmap('tab10')
        for axis, (title, found) in zip(axes[0], panels.items()):
            shown = picture.astype(np.float32) / 255
            for label, mask in zip(found['labels'], found['masks']):
                shown[mask] = 0.4 * shown[mask] + 0.6 * np.array(colours(label % 10)[:3], np.float32)
            _show(axis, title, shown)
            scores = found.get('scores', [None] * len(found['labels']))
            for (x1, y1, x2, y2), label, score in zip(found['boxes'], found['labels'], scores):
                colour, at = colours(label % 10), (x1 - 0.5, y1 - 0.5)
                axis.add_patch(plt.Rectangle(at, x2 - x1, y2 - y1, fill=False, color=colour, linewidth=2))
                text = names[label] if score is None else f'{names[label]}  {score:.2f}'
                background = dict(facecolor=colour, edgecolor='none', pad=1.5)
                axis.text(x1, max(y1 - 2, 5), text, color='white', fontsize=9, bbox=background)
        figure.tight_layout()


def draw_contact_sheet(
    path: Path,
    pictures: Sequence[np.ndarray],
    truth: Sequence[int],
    labels: Sequence[int],
    scores: Sequence[float],
    names: Sequence[str],
    columns: int = 10,
) -> None:
    """Write one PNG of many pictures: above each its predicted class and score, in a mistake also the true class.

    The frame and the text are green where the prediction is right, red where it is wrong.

    Args:
        path: the file.
        pictures: N times uint8 (H, W, 3) RGB.
        truth, labels: N true and predicted classes.
        scores: N.
        names: what the classes stand for.
        columns: pictures in a row.
    """
    rows = max(-(-len(pictures) // columns), 1)
    with _figure(path, rows, columns, figsize=(1.2 * columns, 1.4 * rows)) as (plt, figure, axes):
        for axis in axes.flat:
            axis.set(xticks=[], yticks=[])
            axis.axis('off')
        for axis, picture, true, label, score in zip(axes.flat, pictures, truth, labels, scores):
            colour, wanted = ('green', '') if label == true else ('red', f', is {names[true]}')
            axis.axis('on')
            axis.imshow(picture, interpolation='nearest')
            axis.set_title(f'{names[label]} ({score:.2f}){wanted}', color=colour, fontsize=8, pad=3)
            plt.setp(axis.spines.values(), color=colour, linewidth=2)
        figure.tight_layout(pad=0.5)


def draw_label_maps(path: Path, picture: np.ndarray, panels: Mapping[str, np.ndarray], names: Sequence[str]) -> None:
    """Write one PNG: the picture, and beside it each panel's label map, with a legend of the classes in them.

    Args:
        path: the file.
        picture: uint8 (H, W, 3) RGB.
        panels: by title, an (H, W) map of labels. 0, the background, is drawn black, and what is no class (ignored
            pixels) white.
        names: what the labels stand for.
    """
    with _figure(path, 1, 1 + len(panels), figsize=(3.5 * (1 + len(panels)), 4.2)) as (plt, figure, axes):
        colours = np.ones((256, 3))
        colours[0] = 0
        colours[1 : len(names)] = plt.get_cmap('tab10')(np.arange(len(names) - 1) % 10)[:, :3]
        _show(axes[0, 0], 'picture', picture)
        for axis, (title, labels) in zip(axes[0, 1:], panels.items()):
            _show(axis, title, colours[labels])
        present = [label for label in np.unique([*panels.values()]) if 0 < label < len(names)]
        if present:
            patches = [plt.Rectangle((0, 0), 1, 1, color=colours[label], label=names[label]) for label in present]
            figure.legend(handles=patches, loc='lower center', ncol=len(present), frameon=False)
        figure.tight_layout(rect=(0, 0.06, 1, 1))


def draw_depths(path: Path, picture: np.ndarray, panels: Mapping[str, np.ndarray]) -> None:
    """Write one PNG: the picture, beside it each panel's depths, and their one colour scale in metres.

    Args:
        path: the file.
        picture: uint8 (H, W, 3) RGB.
        panels: by title, (H, W) depths in metres. The first one, the truth, sets the ends of the colour scale.
    """
    truth, size = next(iter(panels.values())), (4 * (1 + len(panels)) + 1, 3.4)
    with _figure(path, 1, 1 + len(panels), figsize=size, layout='constrained') as (_, figure, axes):
        _show(axes[0, 0], 'picture', picture)
        for axis, (title, depth) in zip(axes[0, 1:], panels.items()):
            shown = _show(axis, title, depth, 'viridis', vmin=truth.min(), vmax=truth.max())
        figure.colorbar(shown, ax=axes, label='depth (m)', extend='both', pad=0.01)


def draw_curves(path: Path, curves: Mapping[str, tuple[list, list]], panels: Mapping[str, Sequence[str]]) -> None:
    """Write one PNG with one plot per panel, over the training's iterations.

    Args:
        path: the file.
        curves: the answer of :func:`nfnet_mm.inference.page.read_scalars`.
        panels: by title, the names of the curves to plot; those not there are left out.
    """
    with _figure(path, 1, len(panels), figsize=(5 * len(panels), 4)) as (_, figure, axes):
        for axis, (title, names) in zip(axes[0], panels.items()):
            for name in names:
                if name in curves:
                    axis.plot(*curves[name], label=name, marker='o' if len(curves[name][0]) < 20 else None)
            axis.set(title=title, xlabel='iteration')
            axis.set_ylim(bottom=0)
            axis.grid(alpha=0.3)
            if axis.lines:
                axis.legend()
        figure.tight_layout()
