"""(e) Sharpness-aware minimisation with a fifth of the batch costs a fraction of what it costs with all of it."""

import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from nfnet_mm.engine.sam import SAMHook

from . import training
from .claim import Claim, Found, Verdict
from .statistics import interval

FRACTIONS = (0.2, 1.0)
PAPER = 0.4  # the most that the paper names for a fifth (it says 20-40%)
BATCH, SIZE = 40, 64


def measure(seed: int, quick: bool, folder: Path) -> Found:
    """CPU seconds of steps in turns: ``{'none', '0.2' or '1.0': [seconds]}``."""
    torch.manual_seed(seed)
    model = training.Classifier(dict(type='nfnet_mm.NFNet', arch='nano')).train()
    runner: Any = SimpleNamespace(model=model, optim_wrapper=training.optimizer(model, 1e-3, 0.01))
    batch, rounds = (8, 2) if quick else (BATCH, 7)
    data = dict(inputs=torch.randn(batch, 3, SIZE, SIZE), labels=torch.arange(batch) % 10)
    hooks = {'none': None, **{str(fraction): SAMHook(fraction=fraction) for fraction in FRACTIONS}}
    found: Found = {name: [] for name in hooks}
    for turn in range(rounds + 1):
        for name, hook in hooks.items():
            if hook is not None:
                hook.before_train(runner)
            began = time.process_time()
            model.train_step(data, runner.optim_wrapper)
            if turn:  # the first one warms up
                found[name].append(time.process_time() - began)
            if hook is not None:
                hook.after_train(runner)
    return found


def extra(one: Found, fraction: float) -> float:
    """What SAM adds to a step, as part of the step without it: the median over the turns of one repetition."""
    ratios = sorted(with_it / plain - 1 for with_it, plain in zip(one[str(fraction)], one['none']))
    return (ratios[len(ratios) // 2] + ratios[~(len(ratios) // 2)]) / 2


def judge(found: Sequence[Found]) -> Verdict:
    """Whether a fifth costs less than the whole, and at most what the paper says."""
    part, whole = ([extra(one, fraction) for one in found] for fraction in FRACTIONS)
    less = interval([w - p for w, p in zip(whole, part)])
    costs = [interval(values) for values in (part, whole)]
    shown = less.above_zero and costs[0].mean <= PAPER
    if shown:
        end = 'The claim shows.'
    elif less.above_zero:
        end = f'It costs less, but the claim does NOT show: it is more than the {PAPER:.0%} of the paper.'
    else:
        end = 'The claim does NOT show at this scale.'
    statement = (
        f'SAM on a fifth of the batch adds {costs[0]} of a step, on all of it {costs[1]}; '
        f'the difference is {less}. {end}'
    )
    rows = [
        [f'{fraction:.0%}', f'{cost.mean:.2f}', f'{cost.low:.2f} to {cost.high:.2f}', paper]
        for fraction, cost, paper in zip(FRACTIONS, costs, ('0.20 to 0.40', '1.00'))
    ]
    return Verdict(shown, statement, ('Of the batch', 'Added to a step', 'Interval (95%)', 'Paper'), rows)


def draw(figure: Any, found: Sequence[Found]) -> None:
    """A bar a fraction."""
    axis = figure.subplots()
    means = [interval([extra(one, fraction) for one in found]).mean for fraction in FRACTIONS]
    axis.bar([f'{fraction:.0%} of the batch' for fraction in FRACTIONS], means, color='C0')
    axis.set_ylabel('added to a training step')


CLAIM = Claim(
    'Sharpness-aware minimisation costs 20-40% more time with a fifth of the batch, instead of 100% with all of it',
    'NFNets, Appendix A.4',
    f'CPU time of the training steps of an NFNet nano in turns, batch {BATCH} at {SIZE} px',
    measure,
    judge,
    draw,
    alone=True,
)
