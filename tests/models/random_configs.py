"""Backbone configs as hypothesis draws them: good ones, and good ones with something wrong put in."""

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from torch import nn

NF = ('NFNet', 'NFResNet', 'NFRegNet')
BN = ('BNResNet', 'BNNFNet')
WITH_ATTENTION = ('NFResNet', 'BNResNet')
FAMILIES = (*NF, *BN, 'FixupResNet', 'SkipInitResNet')
SMALL_NAMES = {'NFNet': ('nano', 'timm/test_nfnet'), 'BNNFNet': ('nano',)}

WRONG: list[Any] = [None, True, 'x', '', -1, 0, 1.5, float('nan'), float('inf'), 10**400, (), [], {}, b'F0', ..., 2j]
WRONG += [[1, 2], (1, 2, 3, 'x'), (0, 1, 1, 1), [2.0] * 4, 'F9', '51', [None], {'type': 'nope'}, torch.relu, nn.ReLU]
WRONG += [
    np.array([1, 2, 2, 2]),
    torch.ones(4),
    object(),
    dict,
    Fraction(1, 3),
    1e-320,
    1e200,
    np.nan,
    range(0),
    {1: 2},
]
BAD_ACTS = [nn.ReLU(inplace=True), nn.PReLU(5), print, len, torch.sum, lambda x: x[..., 1:], lambda: 1, nn.Linear]
BAD_ACTS += [nn.Hardshrink(1e9), lambda x: x.tolist(), lambda x: x / 0, lambda x: x.bool()]


def counts(low: int, high: int, length: int = 4) -> st.SearchStrategy:
    one = st.integers(low, high)
    return st.one_of(
        st.lists(one, min_size=length, max_size=length),
        st.tuples(*[one] * length),
        st.tuples(*[one.map(np.int64)] * length),
    )


@st.composite
def archs(draw: st.DrawFn, family: str) -> dict[str, Any]:
    """A dict of the fields that the family's type takes, most of them left out."""
    convs = draw(st.integers(1, 4))
    fields: dict[str, st.SearchStrategy] = dict(
        widths=counts(8, 24),
        depths=counts(1, 2),
        stem_channels=st.one_of(counts(1, 12, convs), st.integers(1, 12)),
        strides=counts(1, 4),
        stem_kernel=st.sampled_from([1, 2, 3, 4, 5, 7]),
        stem_pool=st.sampled_from(['same', 'symmetric', None]),
        bottleneck_ratio=st.sampled_from([0.25, 0.5, 1, 2.25]),
        group_width=st.one_of(st.none(), st.integers(1, 4), counts(1, 2)),
        act=st.sampled_from(['relu', 'silu', 'gelu', 'gelu_exact', 'tanh', 'mish', 'softplus', 'hardswish']),
        attention=st.sampled_from(['se', 'eca', None]),
        se_ratio=st.sampled_from([0.5, 0.25, 1, 0.05, 2]),
        se_divisor=st.integers(1, 8),
        width_divisor=st.integers(1, 8),
        shortcut_pool=st.booleans(),
    )
    if family in (*NF, *BN):
        fields.update(extra_conv=st.booleans(), final_channels=st.one_of(st.none(), st.integers(1, 24)))
    if family in NF:
        fields.update(
            inverted_bottleneck=st.booleans(),
            skip_init=st.booleans(),
            dialect=st.sampled_from(['authors', 'timm']),
            padding=st.sampled_from(['same', 'symmetric']),
            gain_in_conv=st.booleans(),
        )
    always = {'widths', 'depths', 'stem_channels', 'group_width'}
    chosen = {name: draw(one) for name, one in fields.items() if name in always or draw(st.integers(0, 3)) == 0}
    if isinstance(chosen['stem_channels'], (list, tuple)) and draw(st.booleans()):
        chosen['stem_strides'] = draw(counts(1, 3, convs))
    return chosen


INITS = [None, dict(type='Normal', layer='Conv2d', std=0.01), [dict(type='Constant', val=1, layer='BatchNorm2d')]]


@dataclass
class Case:
    """A config, what an image for it is like, and the wrong value that was put in, if any."""

    cfg: dict[str, Any]
    shape: tuple[int, int, int, int]
    wrong: tuple[str, Any] | None = None  # the argument or arch field, and its value
    seed: int = 0


@st.composite
def cases(draw: st.DrawFn) -> Case:
    family = draw(st.sampled_from(FAMILIES))
    named = SMALL_NAMES.get(family) if draw(st.integers(0, 5)) == 0 else None
    arch = draw(st.sampled_from(named)) if named else draw(archs(family))
    arguments: dict[str, st.SearchStrategy] = dict(
        in_channels=st.integers(1, 5),
        out_indices=st.sets(st.integers(0, 4), min_size=1).map(sorted),
        frozen_stages=st.integers(-1, 4),
        strides=counts(1, 4),
        dilations=counts(1, 4),
        with_cp=st.sampled_from([False, True, [True, False, False, True]]),
        act=st.sampled_from(['relu', 'silu', 'identity', torch.tanh, nn.SiLU(), nn.PReLU(), nn.GELU()]),
        drop_path_rate=st.sampled_from([0, 0.1, 0.99, np.float32(0.25), Fraction(1, 3)]),
        init_cfg=st.sampled_from(INITS),
    )
    if family in NF:
        arguments['with_cp'] = st.sampled_from([False, True, 'act', ['act', False, True, 'act']])
        arguments['alpha'] = st.sampled_from([0.2, 1, 1e-3, np.float64(0.5), Fraction(1, 2), 3])
    if family in BN:
        arguments['norm_eval'] = st.booleans()
    if family in WITH_ATTENTION and not (isinstance(arch, dict) and 'attention' in arch):
        arguments['attention'] = st.sampled_from(['se', 'eca', None])
    if family == 'BNResNet':
        arguments.update(preact=st.booleans(), norm_first=st.just(True))
    chosen = {name: draw(one) for name, one in arguments.items() if draw(st.integers(0, 2)) == 0}
    wrong, value = None, None
    if draw(st.integers(0, 2)) == 0:
        wrong = draw(st.sampled_from([*arguments, 'arch', *(arch if isinstance(arch, dict) else ())]))
        value = draw(st.sampled_from(WRONG + BAD_ACTS if wrong == 'act' else WRONG))
        if wrong == 'arch':
            value = 7 if isinstance(value, dict) and not value else value  # {} is the paper's network, of full size
            arch = value
        elif (wrong in arguments and draw(st.booleans())) or not isinstance(arch, dict) or wrong not in arch:
            chosen[wrong] = value
        else:
            arch = {**arch, wrong: value}
    cfg = dict(type=f'nfnet_mm.{family}', arch=arch, **chosen)
    channels = cfg.get('in_channels', 3)
    size = draw(st.one_of(st.tuples(*[st.integers(1, 9)] * 2), st.tuples(*[st.integers(10, 70)] * 2)))
    shape = (draw(st.integers(1, 3)), int(channels) if isinstance(channels, int) else 3, *size)
    return Case(cfg, shape, (wrong, value) if wrong else None, draw(st.integers(0, 999)))
