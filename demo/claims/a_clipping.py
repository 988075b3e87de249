"""(a) A large batch and learning rate need AGC, and the more so the larger the batch."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import training
from .claim import Claim, Found, Verdict
from .statistics import interval, spread

BATCHES = {32: 0.2, 512: 3.2}  # batch: learning rate, in proportion
CLIPPINGS = (0.01, 0.04, 0.16, 0.64, 2.56)
STEPS = 120


def measure(seed: int, quick: bool, folder: Path) -> Found:
    """Accuracies: ``{batch: {clipping or 'none': percent}}``, with as many updates for each."""
    data = training.load(seed)
    steps = 3 if quick else STEPS
    return {
        'accuracy': {
            str(batch): {
                str(clipping or 'none'): training.train(
                    training.build('nf', seed), data, batch, steps, rate, clipping, seed
                )
                for clipping in (None, *CLIPPINGS)
            }
            for batch, rate in BATCHES.items()
        }
    }


def best(accuracies: dict[str, float]) -> float:
    """The clipping of the best accuracy; of equal ones the geometric mean."""
    clipped = {float(c): a for c, a in accuracies.items() if c != 'none'}
    top = [c for c, a in clipped.items() if a == max(clipped.values())]
    return math.exp(sum(map(math.log, top)) / len(top))


def judge(found: Sequence[Found]) -> Verdict:
    """With AGC against without at the largest batch, and the best clipping of the smallest against the largest."""
    tables = [one['accuracy'] for one in found]
    batches = sorted(tables[0], key=int)
    small, large = batches[0], batches[-1]
    # one clipping for all seeds, so that it is not the luck of a seed that is compared
    means = {c: sum(t[large][c] for t in tables) for c in tables[0][large] if c != 'none'}
    chosen = max(means, key=lambda c: means[c])
    gain = interval([t[large][chosen] - t[large]['none'] for t in tables])
    falls = interval([math.log2(best(t[small]) / best(t[large])) for t in tables])
    clips, smaller = gain.above_zero, falls.above_zero
    statement = (
        f'At batch {large}, AGC with a clipping of {chosen} changes the accuracy by {gain} points against none, so '
        f'that AGC {"is" if clips else "is NOT shown to be"} needed there. From batch {small} to {large} the best '
        f'clipping is divided by 2 to the power of {falls}: that it falls as the batch grows '
        f'{"shows" if smaller else "does NOT show at this scale"}.'
    )
    rows = [[batch, clipping, spread([t[batch][clipping] for t in tables])] for batch in batches for clipping in means]
    rows += [[batch, 'none', spread([t[batch]['none'] for t in tables])] for batch in batches]
    rows.sort(key=lambda row: (int(row[0]), row[1] != 'none'))
    return Verdict(clips and smaller, statement, ('Batch', 'Clipping', 'Accuracy, %'), rows)


def draw(figure: Any, found: Sequence[Found]) -> None:
    """Accuracy over the clipping, a line a batch; without AGC, at the right end."""
    axis = figure.subplots()
    tables = [one['accuracy'] for one in found]
    for batch in sorted(tables[0], key=int):
        names = sorted((c for c in tables[0][batch] if c != 'none'), key=float)
        line = [interval([t[batch][c] for t in tables]).mean for c in (*names, 'none')]
        axis.plot(range(len(line)), line, marker='o', label=f'batch {batch}')
        axis.set_xticks(range(len(line)), [*names, 'none'])
    axis.set(xlabel='clipping', ylabel='accuracy, %')
    axis.legend(frameon=False)


CLAIM = Claim(
    'At a large batch and learning rate a normalizer-free network trains with AGC and fails without, and the best '
    'clipping falls as the batch grows',
    'NFNets, section 4.1, Figure 2',
    f'A small NF-ResNet on digits, SGD, {STEPS} updates, a learning rate in proportion to the batch',
    measure,
    judge,
    draw,
)
