"""How much adaptive gradient clipping clipped, per layer and over time: read from a run's log, in words and drawn."""

import csv
import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nfnet_mm.engine.clipping_log import FILE
from nfnet_mm.errors import UserError, check_exists, write_atomically, write_text

_SCALARS = 'scalars.json'


@dataclass(frozen=True)
class ClippingLog:
    """What the log of a run says. A fraction is of units, a scale the smallest factor that one was multiplied by."""

    steps: np.ndarray  # (S,) iterations of the scalars
    fraction: np.ndarray  # (S,) of all units
    scale: np.ndarray  # (S,)
    layers: list[str]  # L parameters, in the order of the network; empty: the run did not log them
    units: np.ndarray  # (L,)
    layer_steps: np.ndarray  # (T,)
    layer_fraction: np.ndarray  # (L, T); NaN where a layer had no gradient
    layer_scale: np.ndarray  # (L, T)


def read_clipping(folder: str | Path) -> ClippingLog:
    """Read a run's work folder, or the folder of one of its logs.

    Of a run that was resumed the logs are put together: where two tell of the same iteration, the later one counts, and
    what the earlier one says of later iterations than those it was resumed at does not. A last line that was cut off is
    passed over.

    Raises:
        UserError: there is no such folder, it holds no log, or the run had no AGC.
    """
    root = Path(folder)
    if not root.is_dir():
        check_exists(root, 'work folder')
        raise UserError(f'{str(folder)!r} is a file: a work folder is asked for')
    logs = sorted(path for pattern in ('', 'vis_data/', '*/vis_data/') for path in root.glob(pattern + _SCALARS))
    if not logs:
        raise UserError(f'{str(folder)!r} holds no log: there is no {_SCALARS} in it, nor in its */vis_data')
    scalars: dict[int, Any] = {}
    layers: dict[int, dict[str, tuple[int, int, float]]] = {}
    for path in logs:
        rows = [row for row in _rows(path) if 'agc/clipped_fraction' in row]
        _continue(scalars, {int(row['step']): row for row in rows})
        _continue(layers, _layer_rows(path.with_name(FILE)))
    if not scalars and not layers:
        what = 'its optimizer wrapper is none of AGC, or it ended before the first line of its log'
        raise UserError(f'the log in {str(folder)!r} tells nothing of AGC: {what}')
    names = list(dict.fromkeys(name for row in layers.values() for name in row))
    shape = len(names), len(layers)
    fraction, scale = np.full(shape, np.nan), np.full(shape, np.nan)
    units, place = np.zeros(len(names), int), {name: i for i, name in enumerate(names)}
    for t, row in enumerate(layers.values()):
        for name, (count, clipped, factor) in row.items():
            i = place[name]
            units[i], fraction[i, t], scale[i, t] = count, clipped / max(count, 1), factor
    return ClippingLog(
        np.array(list(scalars), int),
        np.array([row['agc/clipped_fraction'] for row in scalars.values()], float),
        np.array([row.get('agc/min_scale', np.nan) for row in scalars.values()], float),
        names,
        units,
        np.array(list(layers), int),
        fraction,
        scale,
    )


def _continue(known: dict[int, Any], more: dict[int, Any]) -> None:
    """Put a later log behind an earlier one, by step."""
    if more:
        first = min(more)
        for step in [step for step in known if step >= first]:
            del known[step]
        known.update(sorted(more.items()))


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    lines = path.read_text(errors='replace').splitlines() if path.exists() else []
    for line in lines:
        try:
            row = json.loads(line)
        except ValueError:  # cut off, as the last one of a run that was killed
            continue
        if isinstance(row, dict):
            yield row


def _layer_rows(path: Path) -> dict[int, dict[str, tuple[int, int, float]]]:
    found: dict[int, dict[str, tuple[int, int, float]]] = {}
    names, units = [], []
    for row in _rows(path):
        if 'layers' in row:
            names, units = row['layers'], row['units']
        elif len(row.get('clipped', ())) == len(names):
            told = zip(names, zip(units, row['clipped'], row['scale']))
            found.setdefault(int(row['step']), {}).update(told)
    return found


def group_of(layer: str) -> str:
    """The part of a network that a parameter is of: a backbone's stage, or what stands beside the backbone.

    >>> group_of('backbone.stages.2.0.conv1.weight'), group_of('module.head.fc.bias'), group_of('roi_head.a.b.weight')
    ('backbone.stages.2', 'head', 'roi_head')
    """
    found = re.match(r'(?:module\.)?((?:backbone\.)?\w+(?:\.\d+)?)', layer)
    return found[1] if found else layer


def most_clipped(log: ClippingLog, count: int = 10) -> Iterator[str]:
    """Lines that say how much was clipped, and of which layers most."""
    if len(log.steps):
        tail = max(len(log.steps) // 10, 1)
        yield (
            f'{len(log.steps)} logged iterations, {log.steps[0]} to {log.steps[-1]}: AGC clipped '
            f'{log.fraction.mean():.1%} of the units on average, {log.fraction[:tail].mean():.1%} in the first tenth '
            f'and {log.fraction[-tail:].mean():.1%} in the last; the smallest factor was {np.nanmin(log.scale):.3g}'
        )
    if not log.layers:
        yield (
            'Nothing is logged of each layer: runs of python -m nfnet_mm train log it, and others with custom_hooks='
            "[dict(type='nfnet_mm.ClippingLogHook', interval=100)]"
        )
        return
    fraction = np.nanmean(log.layer_fraction, axis=1)
    order = np.argsort(-fraction, kind='stable')[:count]
    never = int((np.nanmax(log.layer_fraction, axis=1) == 0).sum())
    yield f'Of {len(log.layers)} parameters, at {len(log.layer_steps)} iterations, {never} never were. Most were:'
    width = max(len(log.layers[i]) for i in order)
    yield f'  {"parameter":{width}} {"units":>6} {"clipped":>8} {"at the end":>10} {"smallest factor":>16}'
    for i in order:
        known = log.layer_fraction[i][~np.isnan(log.layer_fraction[i])]
        yield (
            f'  {log.layers[i]:{width}} {log.units[i]:>6} {fraction[i]:>8.1%} {known[-1]:>10.1%} '
            f'{np.nanmin(log.layer_scale[i]):>16.3g}'
        )


def as_csv(log: ClippingLog) -> str:
    """A row for each iteration and layer, ``(all)`` being that of all units."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator='\n')
    writer.writerow(['step', 'layer', 'units', 'clipped_fraction', 'min_scale'])
    for step, fraction, scale in zip(log.steps, log.fraction, log.scale):
        writer.writerow([step, '(all)', '', f'{fraction:.6g}', f'{scale:.6g}'])
    for t, step in enumerate(log.layer_steps):
        for i, name in enumerate(log.layers):
            if not np.isnan(log.layer_fraction[i, t]):
                cells = f'{log.layer_fraction[i, t]:.6g}', f'{log.layer_scale[i, t]:.6g}'
                writer.writerow([step, name, log.units[i], *cells])
    return text.getvalue()


def draw(log: ClippingLog, title: str) -> Any:
    """A figure: heat maps of layers against iterations, if layers were logged, and lines for parts of the network."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    tall = min(max(len(log.layers) * 0.11, 3), 24) if log.layers else 0
    figure = Figure(figsize=(13, tall + 4), layout='constrained')
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    if log.layers:
        axes = figure.subplots(2, 2, height_ratios=[tall, 4])
        lines = axes[1]
        _heat_map(axes[0, 0], log, log.layer_fraction, 'fraction of units clipped', vmin=0, vmax=1)
        scale = np.log10(np.maximum(log.layer_scale, 1e-12))
        _heat_map(axes[0, 1], log, scale, 'smallest factor (log10)', vmax=0, cmap='viridis_r')
        axes[0, 1].set_yticks([])
    else:
        lines = figure.subplots(1, 2)
    lines[0].plot(log.steps, log.fraction, color='black', linewidth=1, label='all')
    lines[1].plot(log.steps, log.scale, color='black', linewidth=1, label='all')
    groups = [group_of(name) for name in log.layers]
    for group in dict.fromkeys(groups):
        mine = np.array([one == group for one in groups])
        weight = np.where(np.isnan(log.layer_fraction[mine]), 0, log.units[mine, None])
        hits = np.nansum(log.layer_fraction[mine] * weight, axis=0) / np.maximum(weight.sum(0), 1)
        lines[0].plot(log.layer_steps, hits, '.-', markersize=3, label=group)
        lines[1].plot(log.layer_steps, np.where(weight > 0, log.layer_scale[mine], 1).min(0), '.-', markersize=3)
    lines[0].set_ylabel('fraction of units clipped')
    lines[1].set_ylabel('smallest factor')
    lines[1].set_yscale('log')
    lines[0].legend(fontsize=7)
    for axis in lines:
        axis.set_xlabel('iteration')
    return figure


def _heat_map(axis: Any, log: ClippingLog, values: np.ndarray, title: str, **options: Any) -> None:
    image = axis.imshow(values, aspect='auto', interpolation='nearest', **options)
    axis.figure.colorbar(image, ax=axis, shrink=0.6)
    axis.set_title(title)
    every = -(-len(log.layers) // 120)
    axis.set_yticks(range(0, len(log.layers), every), log.layers[::every], fontsize=5)
    places = np.unique(np.linspace(0, len(log.layer_steps) - 1, min(len(log.layer_steps), 6)).astype(int))
    axis.set_xticks(places, log.layer_steps[places])


def write_clipping(log: ClippingLog, folder: Path, name: str, title: str) -> list[Path]:
    """Write ``<name>.png`` and ``<name>.csv``; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    picture, table = folder / f'{name}.png', folder / f'{name}.csv'
    figure, text = draw(log, title), as_csv(log)
    write_atomically(picture, lambda file: figure.savefig(file, dpi=100, format='png'))
    write_text(table, text)
    return [picture, table]
