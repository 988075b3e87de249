"""(g) A detector fine-tuned with one image on the device, on a normalizer-free network and on one with BatchNorm."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import detector
from .claim import Claim, Found, Verdict
from .statistics import interval, spread

STEPS = 400
NAMES = dict(nf='NFNet nano', bn='the same with BatchNorm')


def measure(seed: int, quick: bool, folder: Path) -> Found:
    """Box AP: ``{'nf' or 'bn': {iteration: percent}}``."""
    return {
        kind: detector.average_precision(
            kind,
            seed,
            quick,
            folder,
            f'one_image_{kind}_{seed}',
            detector.pretrained(kind, seed, quick, folder),
            1,
            STEPS,
        )
        for kind in NAMES
    }


def judge(found: Sequence[Found]) -> Verdict:
    """Whether the normalizer-free network ends ahead."""
    last = max(found[0]['nf'], key=int)
    ahead = interval([one['nf'][last] - one['bn'][last] for one in found])
    statement = (
        f'After {last} iterations of one image the normalizer-free network is ahead by {ahead} points of box AP. '
        f'{"The claim shows." if ahead.above_zero else "The claim does NOT show at this scale."}'
    )
    rows = [
        [NAMES[kind], iteration, spread([one[kind][iteration] for one in found])]
        for kind in NAMES
        for iteration in found[0][kind]
    ]
    return Verdict(ahead.above_zero, statement, ('Backbone', 'Iterations', 'Box AP'), rows)


def draw(figure: Any, found: Sequence[Found]) -> None:
    """AP over the iterations."""
    curves(figure, found, NAMES)


def curves(figure: Any, found: Sequence[Found], names: dict[str, str]) -> None:
    """A line a seed, a colour for each of the names."""
    axis = figure.subplots()
    for colour, (key, name) in zip(('C0', 'C1'), names.items()):
        for number, one in enumerate(found):
            steps = [int(step) for step in one[key]]
            label = None if number else name
            axis.plot(steps, [*one[key].values()], marker='o', color=colour, alpha=0.7, label=label)
    axis.set(xlabel='iteration', ylabel='box AP')
    axis.set_ylim(bottom=0)
    axis.legend(frameon=False)


CLAIM = Claim(
    'Fine-tuned on a detector with one image on the device, a normalizer-free network is ahead of one with BatchNorm',
    'NFNets, section 1; NF-ResNets, section 1 (of small batches; no table)',
    f'Faster R-CNN on digits, pre-trained backbones whose BatchNorm is in training mode, {STEPS} iterations',
    measure,
    judge,
    draw,
)
