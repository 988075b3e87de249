"""(c) The variances of a normalizer-free network are the ones that were planned."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nfnet_mm.analysis.signal_propagation import signal_propagation
from nfnet_mm.models.backbones import NFResNet

from .claim import Claim, Found, Verdict
from .statistics import interval, spread

SHAPE = dict(widths=(256, 512, 512, 512), depths=(4, 4, 4, 4))


@torch.no_grad()
def measure(seed: int, quick: bool, folder: Path) -> Found:
    """Variances behind each block, of noise at initialisation, with the branches on: measured and as planned."""
    shape = dict(widths=(64, 128, 128, 128), depths=(2, 2, 2, 2)) if quick else SHAPE
    torch.manual_seed(seed)
    network = NFResNet(arch=shape, out_indices=(3,))
    for name, parameter in network.named_parameters():
        if name.endswith('skip_gain'):
            parameter.fill_(1)  # 0 at first, which would hide the branches
    rows = signal_propagation(network, torch.randn(4 if quick else 16, 3, 64, 64))
    return dict(measured=[row.avg_var for row in rows], planned=[row.planned_var for row in rows])


def slope(one: Found) -> float:
    """Of the measured variance's logarithm over the planned one's, by least squares: 1 if they grow alike."""
    return float(np.polyfit(np.log(one['planned']), np.log(one['measured']), 1)[0])


def judge(found: Sequence[Found]) -> Verdict:
    """Whether the measured variance grows with the planned one, and how far it is from it."""
    grows = interval([slope(one) for one in found])
    ratios = [[m / p for m, p in zip(one['measured'], one['planned'])] for one in found]
    off = interval([math.exp(np.mean(np.log(ratio))) for ratio in ratios])
    worst = max(abs(r - 1) for ratio in ratios for r in ratio)
    shown = grows.low > 0.5 and grows.high < 1.5 and 0.8 < off.mean < 1.25
    statement = (
        f'The measured variance grows as the planned one to the power of {grows} (as planned: 1; not at all: 0), '
        f'and is {off} times as large; the block that is furthest off is so by {100 * worst:.0f}%. '
        f'{"The claim shows." if shown else "The claim does NOT show at this scale."}'
    )
    rows = [
        [str(i), f'{planned:.2f}', spread([one['measured'][i] for one in found], 3)]
        for i, planned in enumerate(found[0]['planned'])
    ]
    return Verdict(shown, statement, ('Block', 'Planned', 'Measured'), rows)


def draw(figure: Any, found: Sequence[Found]) -> None:
    """Both over the blocks."""
    axis = figure.subplots()
    axis.plot(found[0]['planned'], color='0.5', linestyle='--', label='planned')
    for number, one in enumerate(found):
        axis.plot(one['measured'], marker='.', color='C0', alpha=0.6, label=None if number else 'measured')
    axis.set(xlabel='block', ylabel='variance')
    axis.set_ylim(bottom=0)
    axis.legend(frameon=False)


CLAIM = Claim(
    'The variance behind each block is the one that was planned',
    'NF-ResNets, section 4, Figure 2',
    'An NF-ResNet at initialisation with its SkipInit gains at 1, on Gaussian noise of 64 px',
    measure,
    judge,
    draw,
)
