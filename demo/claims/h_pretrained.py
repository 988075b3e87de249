"""(h) A detector learns sooner from the checkpoint of the classification demo, given in one line."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import detector
from .claim import Claim, Found, Verdict
from .g_one_image import curves
from .statistics import interval, spread

STEPS = 400
NAMES = {'pretrained': 'from the classifier', 'random': 'from random weights'}


def measure(seed: int, quick: bool, folder: Path) -> Found:
    """Box AP: ``{'pretrained' or 'random': {iteration: percent}}``."""
    weights = dict(pretrained=detector.pretrained('nf', seed, quick, folder), random=None)
    return {
        name: detector.average_precision('nf', seed, quick, folder, f'{name}_{seed}', file, 4, STEPS)
        for name, file in weights.items()
    }


def judge(found: Sequence[Found]) -> Verdict:
    """What pre-training adds after 100, 200 and 400 iterations; that it learns sooner is about all but the last."""
    points = [step for step in found[0]['random'] if step in ('100', '200', '400')] or [*found[0]['random']]
    gains = {step: interval([one['pretrained'][step] - one['random'][step] for one in found]) for step in points}
    early = points[:-1] or points
    shown = all(gains[step].above_zero for step in early)
    told = ', '.join(f'{gain} points after {step} iterations' for step, gain in gains.items())
    without = [step for step, gain in gains.items() if not gain.above_zero]
    end = 'The claim shows.' if shown else 'The claim does NOT show at this scale.'
    if without:
        end += f' No gain shows after {" and ".join(without)} iterations.'
    rows = [
        [step, *(spread([one[name][step] for one in found]) for name in NAMES), str(gain)]
        for step, gain in gains.items()
    ]
    header = ('Iterations', *(f'Box AP {name}' for name in NAMES.values()), 'Gain (95% interval)')
    return Verdict(shown, f'Pre-training adds {told} of box AP. {end}', header, rows)


def draw(figure: Any, found: Sequence[Found]) -> None:
    """AP over the iterations."""
    curves(figure, found, NAMES)


CLAIM = Claim(
    "A detector learns sooner from a classifier's checkpoint: it is ahead after 100 and 200 iterations",
    'NFNets, section 6.3 (transfer), at the scale of a demo',
    f'The classification demo for {detector.PRETRAINING} iterations; its checkpoint as NFPretrained of the backbone of '
    'a Faster R-CNN on digits, batch 4',
    measure,
    judge,
    draw,
)
