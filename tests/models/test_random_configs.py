"""Any config of a backbone either works, at any image size, or is refused with the value that is wrong."""

import math
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from mmengine.registry import MODELS
from torch import nn

from nfnet_mm.errors import UserError

from .random_configs import BN, Case, cases


def quoted(case: Case, message: str) -> bool:
    """Whether an error names what is wrong, and the value that it was given.

    Good values can be at odds with each other: then it names the field that would have to be another.
    """
    if case.wrong and case.wrong[0] in message and any(text in message for text in texts(case.wrong[1])):
        return True
    return message.startswith(tuple(f'arch field {name}=' for name in ('group_width', 'se_ratio', 'bottleneck_ratio')))


def texts(value: Any) -> Iterator[str]:
    yield from (repr(value), str(value), repr(f'{value}'))
    if isinstance(value, (list, tuple, np.ndarray)):
        plain = [one.item() if isinstance(one, np.generic) else one for one in value]
        yield from (repr(plain), repr(tuple(plain)), *map(repr, plain))
    if isinstance(value, dict):
        yield from map(repr, (*value, *value.values()))


def outputs(net: nn.Module, x: torch.Tensor, seed: int) -> list[torch.Tensor]:
    torch.manual_seed(seed)  # the same samples' branches are dropped
    return list(net(x))


def check_works(case: Case, net: nn.Module) -> str:
    """Forward and backward, in both memory layouts and half precision; what the images were too few for, if so."""
    torch.manual_seed(case.seed)
    x = torch.randn(case.shape)
    n, _, height, width = case.shape
    family = case.cfg['type'].removeprefix('nfnet_mm.')
    outs = None
    try:
        outs = outputs(net.train(), x, case.seed)
    except UserError as error:  # one value per channel has no variance
        assert family in BN and f'({n}, ' in str(error) and 'one value per channel' in str(error)
    how = 'evaluated' if outs is None else 'trained'
    outs = outs or outputs(net.eval(), x, case.seed)
    for out, channels, stride in zip(outs, net.out_channels, net.out_strides, strict=True):
        assert out.shape == (n, channels, math.ceil(height / stride), math.ceil(width / stride))
        assert out.isfinite().all()
    state = {name: buffer.clone() for name, buffer in net.named_buffers()}

    trained = [p for p in net.parameters() if p.requires_grad]
    if trained:
        sum(out.square().mean() for out in outs).backward()
    frozen = [*net.stem.parameters()] * (net.frozen_stages >= 0)
    frozen += [p for stage in net.stages[: max(net.frozen_stages, 0)] for p in stage.parameters()]
    assert all(p.grad is None and not p.requires_grad for p in frozen)
    for name, p in net.named_parameters():
        if p.requires_grad:
            assert p.grad is not None and p.grad.shape == p.shape and p.grad.isfinite().all(), name

    for name, buffer in net.named_buffers():  # the same function in another memory layout
        buffer.copy_(state[name])
    for out, other in zip(outs, outputs(net, x.to(memory_format=torch.channels_last), case.seed)):
        assert other.shape == out.shape and other.isfinite().all()
        if family not in BN:  # of two values a channel it makes plus and minus one, of however small a difference
            torch.testing.assert_close(other, out, rtol=1e-2, atol=1e-3 * max(1.0, float(out.abs().max())))
    with torch.autocast('cpu', torch.bfloat16):
        half = outputs(net, x, case.seed)
    for out, other in zip(outs, half):
        assert other.shape == out.shape and other.isfinite().all()
    net.zero_grad()
    if trained:
        sum(out.float().square().mean() for out in half).backward()
    assert all(p.grad.dtype == p.dtype for p in trained)
    # rounded to bfloat16, the few values of a small image may all be one, which BatchNorm after BatchNorm amplifies
    assert family in BN or all(p.grad.isfinite().all() for p in trained)
    return how


def run(case: Case) -> str:
    """What has become of a config."""
    torch.manual_seed(case.seed)
    try:
        net = MODELS.build(case.cfg)
        net.init_weights()
    except UserError as error:
        assert quoted(case, str(error)), str(error)
        assert '\n' not in str(error)
        return 'refused'
    return check_works(case, net)


def settled(examples: int) -> settings:
    """The same configs at every run."""
    return settings(
        max_examples=examples,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink],
    )


def check_random_configs(examples: int) -> None:
    ends: Counter[tuple[bool, str]] = Counter()

    @settled(examples)
    @given(cases())
    def check(case: Case) -> None:
        ends[case.wrong is not None, run(case)] += 1

    check()
    good = {how: count for (wrong, how), count in ends.items() if not wrong}
    assert sum(ends.values()) >= examples
    assert good.get('trained', 0) > 0.6 * sum(good.values())  # a good config is only rarely one that cannot be
    assert ends[True, 'refused'] > 0.1 * examples


def test_random_configs():
    check_random_configs(60)


@pytest.mark.slow
def test_two_thousand_random_configs():
    check_random_configs(2000)
