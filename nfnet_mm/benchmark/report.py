"""The results of a benchmark as a table, as JSON and as pictures."""

import dataclasses
import importlib.metadata
import json
import os
import platform
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from nfnet_mm.errors import UserError, write_atomically, write_text

from .growth import AXES, Growth
from .rows import Result
from .statistics import Summary, paired_ratio

_PACKAGES = ('torch', 'torchvision', 'timm', 'numpy', 'mmengine', 'onedl-mmengine', 'triton')
_TICK = 44  # characters of a bar's name


def machine(device: str) -> dict[str, Any]:
    """What the figures depend on: the device, its threads and load, and the versions."""
    versions = {}
    for name in _PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    found: dict[str, Any] = dict(device=device, python=platform.python_version(), packages=versions)
    found['threads'], found['cores'] = torch.get_num_threads(), os.cpu_count()
    if hasattr(os, 'getloadavg'):
        found['load'] = os.getloadavg()[0]
    if device == 'cuda':
        found['name'] = torch.cuda.get_device_name()
        found['cuda'], found['cudnn'] = torch.version.cuda, torch.backends.cudnn.version()
        found['tf32'] = dict(matmul=torch.backends.cuda.matmul.allow_tf32, cudnn=torch.backends.cudnn.allow_tf32)
    return found


def figure(value: float | None, unit: str) -> str:
    """A value with its unit, of three or four digits.

    >>> figure(0.0123456, 's'), figure(2.5, 's'), figure(3.2e9, 'bytes'), figure(716, ''), figure(None, 's')
    ('12.35 ms', '2.500 s', '3.200 GB', '716', '-')
    """
    if value is None:
        return '-'
    if not unit:
        return f'{value:g}'
    scales = ((1, 's'), (1e-3, 'ms'), (1e-6, 'us')) if unit == 's' else ((1e9, 'GB'), (1e6, 'MB'), (1e3, 'kB'))
    scale, name = next(((scale, name) for scale, name in scales if value >= scale), scales[-1])
    digits = max(0, 3 - len(str(int(value / scale))) + 1)
    return f'{value / scale:.{digits}f} {name}'


def _with_spread(found: Summary | None, unit: str) -> str:
    if found is None or found.low == found.high:
        return figure(found.median if found else None, unit)
    spread = 100 * (found.high - found.low) / found.median if found.median else 0
    return f'{figure(found.median, unit)} ({spread:.0f}%)'


HEADER = ('', 'first', 'second', 'ratio [interval]', 'paper', 'target')
WIDTHS = (44, 17, 17, 21, 6)


def cells(result: Result) -> list[str]:
    """A row of the table."""
    texts = [_with_spread(side.summary, side.unit) for side in result.sides]
    row, ratio = result.row, result.ratio
    ratios = f'{ratio.median:.3f} [{ratio.low:.3f}, {ratio.high:.3f}]' if ratio else ''
    if ratio and ratio.low == ratio.high:
        ratios = f'{ratio.median:.3f}'
    paper = '' if row.published is None else f'{row.published:.2f}'
    target = '' if row.target is None else f'<= {row.target:g}: '
    verdict = {True: 'met', False: 'missed', None: 'unmeasured' if row.target is not None else ''}[result.met]
    return [row.what, *(texts + ['', ''])[:2], ratios, paper, target + verdict]


def line(texts: Sequence[str]) -> str:
    """A line of the table."""
    return '  '.join(text.ljust(width) for text, width in zip(texts, (*WIDTHS, 0))).rstrip()


def lines(result: Result) -> Iterator[str]:
    """A result as lines of the table: why it was not measured stands below it."""
    yield line(cells(result))
    if result.failure:
        yield f'  not measured: {result.failure}'


def legend(results: Sequence[Result], settings: dict[str, Any], pairs: int, where: dict[str, Any]) -> Iterator[str]:
    """What the table's figures are."""
    yield ''
    confidence = paired_ratio([1.0] * pairs, [1.0] * pairs).confidence
    place = where.get('name') or f'the CPU, {where["threads"]} threads'
    yield f'On {place}; torch {torch.__version__}; {settings["dtype"]}.'
    yield (
        f'Medians of {pairs} samples taken in turns, in brackets the interquartile range; the ratio is the median of '
        f'those of the pairs, with an interval of {confidence:.0%}.'
    )
    yield 'The optimizer of all is SGD with Nesterov momentum, ' + ('fused.' if settings['fused'] else 'not fused.')
    chosen = {
        f'{side.name} {side.settings.size} px {side.settings.layout}'
        for result in results
        for side in result.sides
        if side.settings
    }
    yield 'Sizes and layouts: ' + '; '.join(sorted(chosen)) + '.' if chosen else 'Nothing was measured.'


def as_json(
    results: Sequence[Result], growths: Sequence[Growth], where: dict[str, Any], settings: dict[str, Any]
) -> dict[str, Any]:
    """All that was found, every sample too."""
    return dict(
        machine=where,
        settings=settings,
        rows=[_row_as_json(result) for result in results],
        growth=[dataclasses.asdict(one) for one in growths],
    )


def _row_as_json(result: Result) -> dict[str, Any]:
    sides = [dict(dataclasses.asdict(side), summary=side.summary and vars(side.summary)) for side in result.sides]
    return dict(
        dataclasses.asdict(result.row),
        sides=sides,
        ratio=result.ratio and vars(result.ratio),
        figure=result.figure,
        met=result.met,
        failure=result.failure,
        seconds=result.seconds,
    )


def check_folder(folder: Path) -> None:
    """Make a folder, if it is not there.

    Raises:
        UserError: it cannot be made or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(f'--out {str(folder)!r} is no folder that can be written to: {error.strerror}') from None


def write(folder: Path, content: dict[str, Any], results: Sequence[Result], growths: Sequence[Growth]) -> list[Path]:
    """Write the JSON, and the pictures where matplotlib is installed.

    Returns: the files.
    """
    check_folder(folder)
    files = [folder / 'benchmark.json']
    write_text(files[0], json.dumps(content, indent=1, default=str))
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return files
    bars = [result for result in results if result.ratio]
    if bars:
        files.append(folder / 'ratios.png')
        picture = Figure(figsize=(9, 1.2 + 0.45 * len(bars)), layout='constrained')
        _draw_ratios(picture.subplots(), bars)
        _save(picture, files[-1])
    if growths:
        files.append(folder / 'growth.png')
        picture = Figure(figsize=(7, 5), layout='constrained')
        _draw_growth(picture.subplots(), growths)
        _save(picture, files[-1])
    return files


def _save(picture: Any, file: Path) -> None:
    write_atomically(file, lambda opened: picture.savefig(opened, format='png', dpi=120))


def _draw_ratios(axes: Any, results: Sequence[Result]) -> None:
    colours = {True: 'tab:green', False: 'tab:red', None: 'tab:blue'}
    names = [f'{r.row.what[:_TICK]}\n{r.row.ours} / {r.row.theirs}' for r in results]
    ratios = [r.ratio for r in results if r.ratio]
    middle = [ratio.median for ratio in ratios]
    ends = [[r.median - r.low for r in ratios], [r.high - r.median for r in ratios]]
    axes.barh(range(len(names)), middle, xerr=ends, color=[colours[r.met] for r in results], ecolor='black', capsize=3)
    for i, result in enumerate(results):
        for value, style in ((result.row.target, '-'), (result.row.published, ':')):
            if value is not None:
                axes.plot([value, value], [i - 0.4, i + 0.4], color='black', linestyle=style)
    # an end of an interval far off would leave nothing to see of the others
    axes.set_xlim(0, 1.2 * max(1, *middle, *(r.row.target or 0 for r in results)))
    axes.axvline(1, color='grey', linewidth=0.8)
    axes.set_yticks(range(len(names)), names, fontsize=7)
    axes.invert_yaxis()
    axes.set_xlabel('first / second: smaller is better; | target, : paper')


def _draw_growth(axes: Any, growths: Sequence[Growth]) -> None:
    for i, one in enumerate(growths):
        x = [point.x for point in one.points]
        y = [point.seconds.median for point in one.points]
        fitted = [one.line.intercept + one.line.slope * value for value in x]
        label = f'{one.name}: {one.line.intercept:.3g} + {one.line.slope:.3g} x, R2 {one.line.r2:.4f}'
        axes.plot(x, y, 'o', color=f'C{i}')
        axes.plot(x, fitted, '-', color=f'C{i}', label=label)
    axes.set_xlabel(AXES[growths[0].axis][0])
    axes.set_ylabel('seconds of a training step')
    axes.legend(fontsize=8)
