"""The pictures a demo run ends with: predictions beside the truth, and the training's curves."""

import json
from pathlib import Path

import numpy as np

__all__ = ['draw_contact_sheet', 'draw_curves', 'draw_depths', 'draw_label_maps', 'draw_prediction', 'read_scalars']


def _plt():
    import matplotlib

    matplotlib.use('Agg')
    import matplotlib.pyplot

    return matplotlib.pyplot


def draw_prediction(path, picture, panels, names):
    """Write one PNG: the picture once per panel, with that panel's instances on it.

    Args:
        path (str | os.PathLike): The file.
        picture (numpy.ndarray): uint8 (H, W, 3) RGB.
        panels (dict[str, dict]): By title, the instances: ``boxes`` (N, 4) as x1, y1, x2, y2 in pixels, ``labels``
            (N,), boolean ``masks`` (N, H, W) and, for predictions, ``scores`` (N,).
        names (Sequence[str]): What the labels stand for.
    """
    plt = _plt()
    colours = plt.get_cmap('tab10')
    figure, axes = plt.subplots(1, len(panels), figsize=(4.5 * len(panels), 4.9), squeeze=False)
    for axis, (title, found) in zip(axes[0], panels.items()):
        shown = picture.astype(np.float32) / 255
        for label, mask in zip(found['labels'], found['masks']):
            shown[mask] = 0.4 * shown[mask] + 0.6 * np.array(colours(label % 10)[:3], np.float32)
        axis.imshow(shown, interpolation='nearest')
        scores = found.get('scores', [None] * len(found['labels']))
        for (x1, y1, x2, y2), label, score in zip(found['boxes'], found['labels'], scores):
            colour = colours(label % 10)
            axis.add_patch(plt.Rectangle((x1 - 0.5, y1 - 0.5), x2 - x1, y2 - y1, fill=False, color=colour, linewidth=2))
            text = names[label] if score is None else f'{names[label]}  {score:.2f}'
            axis.text(
                x1,
                max(y1 - 2, 5),
                text,
                color='white',
                fontsize=9,
                bbox=dict(facecolor=colour, edgecolor='none', pad=1.5),
            )
        axis.set_title(title)
        axis.axis('off')
    figure.tight_layout()
    figure.savefig(path, dpi=80)
    plt.close(figure)


def draw_contact_sheet(path, pictures, truth, labels, scores, names, columns=10):
    """Write one PNG of many pictures: above each its predicted class and score, in a mistake also the true class.

    The frame and the text are green where the prediction is right, red where it is wrong.

    Args:
        path (str | os.PathLike): The file.
        pictures (Sequence[numpy.ndarray]): N times uint8 (H, W, 3) RGB.
        truth, labels (Sequence[int]): N true and predicted classes.
        scores (Sequence[float]): N.
        names (Sequence[str]): What the classes stand for.
        columns (int): Pictures in a row.
    """
    plt = _plt()
    rows = max(-(-len(pictures) // columns), 1)
    figure, axes = plt.subplots(rows, columns, figsize=(1.2 * columns, 1.4 * rows), squeeze=False)
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
    figure.savefig(path, dpi=80)
    plt.close(figure)


def draw_label_maps(path, picture, panels, names):
    """Write one PNG: the picture, and beside it each panel's label map, with a legend of the classes in them.

    Args:
        path (str | os.PathLike): The file.
        picture (numpy.ndarray): uint8 (H, W, 3) RGB.
        panels (dict[str, numpy.ndarray]): By title, an (H, W) map of labels. 0, the background, is drawn black, and
            what is no class (ignored pixels) white.
        names (Sequence[str]): What the labels stand for.
    """
    plt = _plt()
    colours = np.ones((256, 3))
    colours[0] = 0
    colours[1 : len(names)] = plt.get_cmap('tab10')(np.arange(len(names) - 1) % 10)[:, :3]
    figure, axes = plt.subplots(1, 1 + len(panels), figsize=(3.5 * (1 + len(panels)), 4.2), squeeze=False)
    for axis, (title, shown) in zip(axes[0], [('picture', picture), *panels.items()]):
        axis.imshow(shown if shown.ndim == 3 else colours[shown], interpolation='nearest')
        axis.set_title(title)
        axis.axis('off')
    present = sorted({int(label) for shown in panels.values() for label in np.unique(shown) if 0 < label < len(names)})
    if present:
        figure.legend(
            [plt.Rectangle((0, 0), 1, 1, color=colours[label]) for label in present],
            [names[label] for label in present],
            loc='lower center',
            ncol=len(present),
            frameon=False,
        )
    figure.tight_layout(rect=(0, 0.06, 1, 1))
    figure.savefig(path, dpi=80)
    plt.close(figure)


def draw_depths(path, picture, panels):
    """Write one PNG: the picture, beside it each panel's depths, and their one colour scale in metres.

    Args:
        path (str | os.PathLike): The file.
        picture (numpy.ndarray): uint8 (H, W, 3) RGB.
        panels (dict[str, numpy.ndarray]): By title, (H, W) depths in metres. The first one, the truth, sets the ends
            of the colour scale.
    """
    plt = _plt()
    truth = next(iter(panels.values()))
    figure, axes = plt.subplots(1, 1 + len(panels), figsize=(4 * (1 + len(panels)) + 1, 3.4), layout='constrained')
    axes[0].imshow(picture, interpolation='nearest')
    axes[0].set_title('picture')
    for axis, (title, depth) in zip(axes[1:], panels.items()):
        shown = axis.imshow(depth, 'viridis', vmin=truth.min(), vmax=truth.max(), interpolation='nearest')
        axis.set_title(title)
    for axis in axes:
        axis.axis('off')
    figure.colorbar(shown, ax=axes, label='depth (m)', extend='both', pad=0.01)
    figure.savefig(path, dpi=80)
    plt.close(figure)


def read_scalars(path):
    """The curves in a ``scalars.json`` of mmengine: {name: (steps, values)}.

    Raises:
        ValueError: it is cut off or empty; the file is quoted.
    """
    curves = {}
    for number, line in enumerate(Path(path).read_text().splitlines(), 1):
        try:
            row = json.loads(line)
        except ValueError as error:
            raise ValueError(f'{str(path)!r}, line {number}, is not JSON: {error}') from error
        for name, value in row.items():
            if isinstance(value, (int, float)) and 'step' in row:
                steps, values = curves.setdefault(name, ([], []))
                steps.append(row['step'])
                values.append(value)
    if not curves:
        raise ValueError(f'{str(path)!r} holds no scalars')
    return curves


def draw_curves(path, curves, panels):
    """Write one PNG with one plot per panel, over the training's iterations.

    Args:
        path (str | os.PathLike): The file.
        curves (dict): The answer of :func:`read_scalars`.
        panels (dict[str, Sequence[str]]): By title, the names of the curves to plot; those not there are left out.
    """
    plt = _plt()
    figure, axes = plt.subplots(1, len(panels), figsize=(5 * len(panels), 4), squeeze=False)
    for axis, (title, names) in zip(axes[0], panels.items()):
        for name in names:
            if name in curves:
                axis.plot(*curves[name], label=name, marker='o' if len(curves[name][0]) < 20 else None)
        axis.set_title(title)
        axis.set_xlabel('iteration')
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.3)
        if axis.lines:
            axis.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=80)
    plt.close(figure)
