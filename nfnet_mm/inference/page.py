"""The page of a run: its pictures, its figures, the training's curves, and how it was made."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

import nfnet_mm
from nfnet_mm.converters.hub.checksum import digest
from nfnet_mm.html_page import Page, Picture

from .tables import Tables

SHOWN = 200  # pictures on a page; a browser takes its time over thousands
_NO_CURVES = ('step', 'iter', 'epoch', 'time', 'data_time', 'memory', 'lr', 'base_lr', 'momentum')


def write_page(
    folder: Path,
    shown: Sequence[tuple[Path, str]],
    tables: Tables,
    files: Mapping[str, Path],
    checkpoint: Path,
    meta: Mapping[str, Any],
    made: Mapping[str, object],
    notes: Sequence[str] = (),
) -> Path:
    """Write ``index.html``.

    Args:
        folder: where the pictures lie.
        shown: the pictures, and a line of what was found in each.
        tables: what was found in all of them.
        files: results for programs, and videos, by what they are.
        checkpoint: the weights' file; of a training's, the curves are shown.
        meta: what the checkpoint tells of its training.
        made: how it was made, by name; ``config`` is one of them.
        notes: what is not on the page, or to be taken with care, and why.
    """
    count = len(tables.rows)
    page = Page(f'{Path(str(made["config"])).stem} on {count} picture{"s" * (count != 1)}', folder)
    for line in notes:
        page.text(line)
    page.section('Pictures')
    width = dict(depth_in_metres=30, top=12).get(next(iter(tables.rows[0][2])), 19)  # three things side by side, or one
    page.grid((Picture(path, line, f'Prediction drawn on {line}') for path, line in shown[:SHOWN]), width)
    if len(shown) > SHOWN:
        page.text(f'{len(shown) - SHOWN} more lie in this folder.')
    page.section('Figures')
    header, rows, caption = tables.summary()
    if rows:
        page.table(header, rows, caption)
    else:
        page.text('Nothing was found.')
    if files:
        page.links('Files:', files)
    curves = curves_of(checkpoint)
    if curves:
        page.section('Training')
        page.charts(group_curves(curves), 'iteration')
    page.section('How it was made')
    page.facts({**how_made(checkpoint, meta), **made})
    return page.write()


def how_made(checkpoint: Path, meta: Mapping[str, Any]) -> dict[str, object]:
    """The checkpoint, when it was written in training, and the versions of the packages here."""
    facts: dict[str, object] = dict(checkpoint=checkpoint)
    if checkpoint.is_file():
        facts['SHA-256'] = digest(checkpoint)
    for key in ('iter', 'epoch', 'time'):
        if meta.get(key):
            facts[f'checkpoint: {key}'] = meta[key]
    versions = [f'nfnet_mm {nfnet_mm.__version__}', f'torch {torch.__version__}']
    for name in ('mmengine', 'mmcv', 'mmdetection', 'mmdet', 'mmsegmentation', 'mmpretrain'):
        for prefix in ('onedl-', ''):
            try:
                versions.append(f'{prefix}{name} {metadata.version(prefix + name)}')
                break
            except metadata.PackageNotFoundError:
                continue
    return {**facts, 'versions': ', '.join(versions), 'written': datetime.now().astimezone().isoformat(' ', 'seconds')}


def read_scalars(path: Path) -> dict[str, tuple[list, list]]:
    """The curves in a ``scalars.json`` of mmengine: {name: (steps, values)}.

    Raises:
        ValueError: it is cut off or empty; the file is quoted.
    """
    curves: dict[str, tuple[list, list]] = {}
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


def curves_of(checkpoint: Path) -> dict[str, tuple[list, list]]:
    """The curves of the newest training that logged beside a checkpoint; none if there is none that can be read."""
    logs = sorted(checkpoint.parent.glob('*/vis_data/scalars.json'), key=lambda path: path.parent.parent.name)
    for path in reversed(logs):
        try:
            curves = read_scalars(path)
        except (ValueError, OSError):
            continue
        if any(name.startswith('loss') for name in curves):  # a test logs there, too
            return curves
    return {}


def group_curves(curves: Mapping[str, tuple[list, list]]) -> dict[str, dict[str, tuple[list, list]]]:
    """Curves by chart: all losses in one, and those of one prefix, as ``coco/``.

    >>> {title: [*lines] for title, lines in group_curves(dict.fromkeys(('loss', 'loss_cls', 'lr', 'coco/a'))).items()}
    {'losses': ['loss', 'loss_cls'], 'coco': ['coco/a']}
    """
    charts: dict[str, dict[str, tuple[list, list]]] = dict(losses={})
    for name, curve in curves.items():
        if name not in _NO_CURVES:
            title = 'losses' if 'loss' in name else name.partition('/')[0]
            charts.setdefault(title, {})[name] = curve
    return {title: lines for title, lines in charts.items() if lines}
