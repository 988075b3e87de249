"""Draw signal propagation plots (NF-ResNets, section 3)."""

import math
import os
from collections.abc import Sequence
from typing import Any

from nfnet_mm.errors import UserError, write_atomically

from .signal_propagation import BlockSignal

_PANELS = (
    ('avg_sq_mean', 'average channel squared mean'),
    ('avg_var', 'average channel variance'),
    ('res_avg_var', 'residual average channel variance'),
)


def draw(
    path: str | os.PathLike, signals: Sequence[tuple[str, Sequence[BlockSignal]]], title: str = '', log: bool = False
) -> None:
    """Write a PNG: the three statistics against the blocks, a line for each model, black dots at the ends of stages.

    The variance has the prediction beside it, dashed, and what the papers plan, dotted, where that is another.

    Args:
        path: of the file.
        signals: (name, rows) of each model.
        title: above all.
        log: a logarithmic axis of the values.

    Raises:
        UserError: matplotlib is missing, or the file cannot be written.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise UserError('a plot needs matplotlib: pip install matplotlib') from None
    picture = Figure(figsize=(15, 4.5), layout='constrained')
    for axes, (name, label) in zip(picture.subplots(1, 3), _PANELS):
        for i, (model, rows) in enumerate(signals):
            _line(axes, rows, name, f'C{i}', model)
            if name == 'avg_var':
                _expected(axes, rows, f'C{i}')
        axes.set_title(label)
        axes.set_xlabel('block')
        if log:
            axes.set_yscale('log')
        elif sum(axes.get_ylim()) > 20 * (axes.get_ylim()[1] - axes.get_ylim()[0]):  # rounding is not to fill it
            middle = sum(axes.get_ylim()) / 2
            axes.set_ylim(0.9 * middle, 1.1 * middle)
    first = picture.axes[0]
    first.legend(fontsize=8)
    all_rows = [row for _, rows in signals for row in rows]
    for name, style, label in (('predicted_var', '--', 'predicted'), ('planned_var', ':', "the papers' plan")):
        if any(math.isfinite(getattr(row, name)) for row in all_rows):
            picture.axes[1].plot([], [], style, color='grey', label=label)
            picture.axes[1].legend(fontsize=8)
    picture.suptitle(title)
    write_atomically(path, lambda file: picture.savefig(file, format='png', dpi=120))


def _line(axes: Any, rows: Sequence[BlockSignal], name: str, colour: str, label: str) -> None:
    values = [getattr(row, name) for row in rows]
    values = [value if math.isfinite(value) else math.nan for value in values]
    axes.plot(values, color=colour, label=label, marker='.' if len(rows) < 60 else None, linewidth=1)
    ends = [i for i, row in enumerate(rows) if i + 1 == len(rows) or rows[i + 1].stage != row.stage]
    axes.plot(ends, [values[i] for i in ends], 'o', color='black', markersize=4)


def _expected(axes: Any, rows: Sequence[BlockSignal], colour: str) -> None:
    axes.plot([row.predicted_var for row in rows], '--', color=colour, linewidth=1, alpha=0.8)
    axes.plot([row.planned_var for row in rows], ':', color=colour, linewidth=1, alpha=0.8)
