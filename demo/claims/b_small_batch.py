"""(b) At batch 4 a normalizer-free network holds and one with BatchNorm does not."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import training
from .claim import Claim, Found, Verdict
from .statistics import interval, spread

BATCHES = (4, 64)
RATE, STEPS = 0.003, 1000
SIZE = 8  # px, of which the last two stages have one: BatchNorm has four values of each channel there
NAMES = dict(nf='NF-ResNet', bn='BatchNorm ResNet')


def measure(seed: int, quick: bool, folder: Path) -> Found:
    """Accuracies: ``{'nf' or 'bn': {batch: percent}}``, at one learning rate and number of updates."""
    data = training.load(seed, SIZE)
    return {
        kind: {
            str(batch): training.train(
                training.build(kind, seed), data, batch, 3 if quick else STEPS, RATE, None, seed, adam=True
            )
            for batch in BATCHES
        }
        for kind in NAMES
    }


def judge(found: Sequence[Found]) -> Verdict:
    """What BatchNorm loses from the larger batch to the smaller, beyond what the normalizer-free network loses."""
    small, large = map(str, BATCHES)
    more = interval([one['bn'][large] - one['bn'][small] - one['nf'][large] + one['nf'][small] for one in found])
    ahead = interval([one['nf'][small] - one['bn'][small] for one in found])
    shown = more.above_zero and ahead.above_zero
    statement = (
        f'From batch {large} to {small} BatchNorm loses {more} points more than the normalizer-free network, which is '
        f'ahead by {ahead} points at batch {small}. '
        f'{"The claim shows." if shown else "The claim does NOT show at this scale."}'
    )
    rows = [
        [NAMES[kind], batch, spread([one[kind][batch] for one in found])] for kind in NAMES for batch in found[0][kind]
    ]
    return Verdict(shown, statement, ('Network', 'Batch', 'Accuracy, %'), rows)


def draw(figure: Any, found: Sequence[Found]) -> None:
    """Each seed a line from the small to the large batch."""
    axis = figure.subplots()
    for colour, (kind, name) in zip(('C0', 'C1'), NAMES.items()):
        for number, one in enumerate(found):
            label = name if number == 0 else None
            axis.plot([*one[kind]], [*one[kind].values()], color=colour, marker='o', alpha=0.7, label=label)
    axis.set(xlabel='batch', ylabel='accuracy, %')
    axis.legend(frameon=False)


CLAIM = Claim(
    'At batch 4 a normalizer-free network holds, and one with BatchNorm does not',
    'NF-ResNets, Table 2',
    f'Two small ResNets on digits, {SIZE} px, AdamW at a learning rate of {RATE}, {STEPS} updates',
    measure,
    judge,
    draw,
)
