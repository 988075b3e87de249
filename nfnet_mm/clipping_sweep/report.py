"""What a sweep found: a table, sentences, CSV and a figure."""

import csv
import io
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nfnet_mm.analysis.intervals import mean_interval
from nfnet_mm.errors import write_atomically, write_text

from .trial import Outcome


@dataclass(frozen=True)
class Row:
    """The seeds of one optimizer and clipping together. Means are of those that did not diverge."""

    optimizer: str
    clipping: float | None
    seeds: int
    diverged: int
    clipped: float | None
    scale: float | None
    loss: float | None
    spread: float | None  # standard deviation over the seeds
    against: tuple[float, float, float] | None  # loss less that without clipping, by seed: mean and 95% interval
    scores: dict[str, float]

    @property
    def name(self) -> str:
        return 'none' if self.clipping is None else f'{self.clipping:g}'


def summarise(outcomes: Sequence[Outcome]) -> list[Row]:
    """A row for each optimizer and clipping, in the order of the outcomes."""
    rows = []
    for key in dict.fromkeys((one.optimizer, one.clipping) for one in outcomes):
        found = [one for one in outcomes if (one.optimizer, one.clipping) == key]
        good = [one for one in found if not one.diverged]
        plain = {one.seed: one.loss for one in outcomes if _is_plain(one, key[0])}
        losses = [one.loss for one in good if one.loss is not None]
        pairs = [one.loss - base for one in good if one.loss is not None and (base := plain.get(one.seed)) is not None]
        names = dict.fromkeys(name for one in good for name in one.scores)
        rows.append(
            Row(
                *key,
                len(found),
                len(found) - len(good),
                _mean([one.clipped for one in found]),
                _mean([one.scale for one in found]),
                _mean(losses),
                statistics.stdev(losses) if len(losses) > 1 else None,
                mean_interval(pairs) if len(pairs) > 1 and key[1] is not None else None,
                {name: _mean([one.scores[name] for one in good]) or 0.0 for name in names},
            )
        )
    return rows


def _is_plain(one: Outcome, optimizer: str) -> bool:
    return one.optimizer == optimizer and one.clipping is None and not one.diverged


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None


def table(rows: Sequence[Row]) -> Iterator[str]:
    """The lines of the table."""
    width = max(9, *(len(row.optimizer) for row in rows))
    scores = list(dict.fromkeys(name for row in rows for name in row.scores))
    yield (
        f'{"optimizer":{width}} {"clipping":>8} {"clipped":>8} {"scale":>8} {"loss":>8} {"+-":>7} '
        f'{"diverged":>8}  less the loss without clipping' + ''.join(f'  {name}' for name in scores)
    )
    for row in rows:
        against = '{:+.3f} ({:+.3f} to {:+.3f})'.format(*row.against) if row.against else ''
        yield (
            f'{row.optimizer:{width}} {row.name:>8} {_cell(row.clipped, ".1%"):>8} {_cell(row.scale, ".3g"):>8} '
            f'{_cell(row.loss, ".4f"):>8} {_cell(row.spread, ".4f"):>7} {row.diverged:>3} of {row.seeds}  {against:29}'
            + ''.join(f'  {_cell(row.scores.get(name), ".4g"):>{len(name)}}' for name in scores)
        ).rstrip()


def _cell(value: float | None, form: str) -> str:
    return '-' if value is None else format(value, form)


def verdicts(rows: Sequence[Row]) -> Iterator[str]:
    """A sentence for each optimizer: which clipping is best, and whether that is more than chance."""
    for optimizer in dict.fromkeys(row.optimizer for row in rows):
        mine = [row for row in rows if row.optimizer == optimizer]
        stable = [row for row in mine if row.loss is not None and not row.diverged and row.clipping is not None]
        plain = next((row for row in mine if row.clipping is None), None)
        if not stable:
            yield f'{optimizer}: no clipping kept all seeds from diverging. Try a lower learning rate.'
            continue
        best = min(stable, key=lambda row: row.loss or 0.0)
        text = f'{optimizer}: the lowest loss is {best.loss:.4f}, at clipping {best.name}'
        if plain is None or plain.diverged:
            lost = f'{plain.diverged} of {plain.seeds} seeds diverge' if plain else 'it is not known what comes'
            yield f'{text}; without clipping {lost}.'
        elif best.against is None:
            yield f'{text}; one seed tells no difference to {plain.loss:.4f} without clipping from chance.'
        else:
            mean, low, high = best.against
            shown = 'more than chance' if high < 0 or low > 0 else 'which may be chance'
            yield f'{text}; that is {mean:+.4f} against none (95% interval {low:+.4f} to {high:+.4f}), {shown}.'


def write_report(folder: Path, outcomes: Sequence[Outcome], title: str) -> list[Path]:
    """Write ``sweep.csv``, a row for each training, and ``sweep.png``; returns their paths."""
    text = io.StringIO()
    scores = list(dict.fromkeys(name for one in outcomes for name in one.scores))
    fields = ('optimizer', 'clipping', 'seed', 'first_loss', 'loss', 'clipped', 'scale', 'skipped', 'diverged')
    writer = csv.writer(text, lineterminator='\n')
    writer.writerow([*fields, *scores])
    for one in outcomes:
        cells = [getattr(one, name) for name in fields]
        cells[1] = 'none' if one.clipping is None else one.clipping
        writer.writerow([*cells, *(one.scores.get(name) for name in scores)])
    csv_file, picture = folder / 'sweep.csv', folder / 'sweep.png'
    write_text(csv_file, text.getvalue())
    figure = _draw(outcomes, title)
    write_atomically(picture, lambda file: figure.savefig(file, dpi=100, format='png'))
    return [csv_file, picture]


def _draw(outcomes: Sequence[Outcome], title: str) -> Any:
    """Loss and clipped fraction against the clipping; a dot for each seed, a cross where it diverged."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = summarise(outcomes)
    names = list(dict.fromkeys(row.name for row in rows))
    names.sort(key=lambda name: float('inf') if name == 'none' else float(name))
    figure = Figure(figsize=(10, 4.2), layout='constrained')
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    for i, optimizer in enumerate(dict.fromkeys(row.optimizer for row in rows)):
        colour = f'C{i}'
        mine = sorted((row for row in rows if row.optimizer == optimizer), key=lambda row: names.index(row.name))
        places = [names.index(row.name) for row in mine]
        nothing = float('nan')
        left.plot(places, [nothing if row.loss is None else row.loss for row in mine], color=colour, label=optimizer)
        right.plot(places, [nothing if row.clipped is None else row.clipped for row in mine], 'o-', color=colour)
        for one in (one for one in outcomes if one.optimizer == optimizer):
            place = names.index('none' if one.clipping is None else f'{one.clipping:g}')
            if one.loss is not None and not one.diverged:
                left.plot(place, one.loss, '.', color=colour)
            else:
                left.plot(place + 0.1 * i, 0.97, 'x', color=colour, transform=left.get_xaxis_transform())
    left.set_ylabel('loss of the last tenth (crosses: diverged)')
    right.set_ylabel('fraction of units clipped')
    for axis in (left, right):
        axis.set_xticks(range(len(names)), names)
        axis.set_xlabel('clipping')
    left.legend()
    figure.suptitle(title)
    return figure
