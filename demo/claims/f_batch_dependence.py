"""(f) An example's output depends on the batch that it is in under BatchNorm, and not in a normalizer-free network."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from . import training
from .b_small_batch import NAMES
from .claim import Claim, Found, Verdict
from .statistics import interval

ROUNDING = 1e-4  # float32's, of convolutions that may add in another order


@torch.no_grad()
def measure(seed: int, quick: bool, folder: Path) -> Found:
    """The spread of one example's logits over batches of 16, as part of the size of the logits, in training mode."""
    data = training.load(seed)
    found = {}
    for kind in NAMES:
        model = training.build(kind, seed).train()
        for stage in model.backbone.stages:
            for block in stage:
                if getattr(block, 'skip_gain', None) is not None:
                    block.skip_gain.fill_(1)  # at 0, where it starts, nothing of the branches would be seen
        rows = training.batches(len(data.images) - 1, 15, 4 if quick else 20, seed)
        logits = torch.stack([model(torch.cat([data.images[:1], data.images[1:][others]]))[0] for others in rows])
        found[kind] = (logits.std(0).norm() / logits.mean(0).norm()).item()
    return found


def judge(found: Sequence[Found]) -> Verdict:
    """Whether BatchNorm's outputs move beyond rounding, and the others' do not."""
    bn, nf = interval([one['bn'] for one in found]), max(one['nf'] for one in found)
    shown = bn.low > ROUNDING and nf <= ROUNDING
    statement = (
        f"Under BatchNorm an example's logits move by {bn} of their size with the rest of the batch, in the "
        f'normalizer-free network by {nf:.1g} at most (rounding: {ROUNDING:g}). '
        f'{"The claim shows." if shown else "The claim does NOT show at this scale."}'
    )
    rows = [[name, *(f'{one[kind]:.2g}' for one in found)] for kind, name in NAMES.items()]
    header = ('Network', *(f'Seed {number}' for number in range(len(found))))
    return Verdict(shown, statement, header, rows)


def draw(figure: Any, found: Sequence[Found]) -> None:
    """A bar a network."""
    axis = figure.subplots()
    means = [interval([one[kind] for one in found]).mean for kind in NAMES]
    axis.bar([*NAMES.values()], means, color=('C0', 'C1'))
    axis.set_ylabel('spread of the logits / their size')


CLAIM = Claim(
    "An example's output depends on the rest of its batch under BatchNorm, and not in a normalizer-free network",
    'NFNets, section 1; NF-ResNets, section 1',
    'Two small ResNets in training mode; one digit in batches of 16 with others',
    measure,
    judge,
    draw,
)
