"""The plan of a network's blocks."""

import dataclasses

import pytest

from nfnet_mm.errors import UserError
from nfnet_mm.models import NFNet
from nfnet_mm.models.backbones import plan_blocks
from nfnet_mm.models.backbones.arch import find_network, resolve_arch


def plan(name, **kwargs):
    return plan_blocks(find_network(name).arch, **kwargs)


@pytest.mark.parametrize('name, depths', [('F0', (1, 2, 6, 3)), ('nf_resnet101', (3, 4, 23, 3))])
@pytest.mark.parametrize('alpha', [0.2, 0.5])
def test_betas_against_the_authors_loop(name, depths, alpha):
    blocks, std = iter(plan(name, alpha=alpha)), 1.0
    for stage, depth in enumerate(depths):
        for index in range(depth):
            block = next(blocks)
            assert (block.stage, block.index, block.alpha) == (stage, index, alpha)
            assert block.beta == pytest.approx(1 / std, rel=1e-12)
            if index == 0:
                std = 1.0
            std = (std**2 + alpha**2) ** 0.5
            assert block.out_variance == pytest.approx(std**2, rel=1e-12)
    assert next(blocks, None) is None


def test_f0_by_hand():
    blocks = plan('F0', drop_path_rate=0.24)
    assert [block.beta for block in blocks[2:5]] == [1.04**-0.5, 1.08**-0.5, 1.04**-0.5]
    assert [block.out_variance for block in blocks[-3:]] == pytest.approx([1.04, 1.08, 1.12])
    assert [block.drop_path_rate for block in blocks] == pytest.approx([0.02 * i for i in range(12)])
    assert [(b.in_channels, b.out_channels, b.width, b.groups, b.stride, b.out_stride) for b in blocks[:4]] == [
        (128, 256, 128, 1, 1, 4),
        (256, 512, 256, 2, 2, 8),
        (512, 512, 256, 2, 1, 8),
        (512, 1536, 768, 6, 2, 16),
    ]
    assert [b.transition for b in blocks] == [1, 1, 0, 1, 0, 0, 0, 0, 0, 1, 0, 0]
    assert {b.se_hidden for b in blocks if b.stage == 3} == {768} and blocks[0].attention_channels == 256


def test_inverted_bottlenecks_by_hand():
    """NF-ResNets, Appendix E: 2.25 times the input's channels in groups of 8, but the first block's as wide as it."""
    first, second, third = plan('nf_regnet_b0')[:3]
    assert (first.in_channels, first.width, first.groups) == (36, 32, 4)
    assert (second.in_channels, second.width, second.groups) == (36, 80, 10)
    assert (third.in_channels, third.width, third.groups) == (78, 168, 21)
    assert (third.attention_channels, third.se_hidden) == (168, 84)
    assert plan('nf_resnet50')[0].se_hidden is None


def test_strides_and_dilations_are_the_first_blocks_and_the_stages():
    blocks = plan('F0', strides=(2, 1, 3, 1), dilations=(1, 2, 4, 8))
    assert [block.stride for block in blocks] == [2, 1, 1, 3, 1, 1, 1, 1, 1, 1, 1, 1]
    assert [block.dilation for block in blocks] == [1, 2, 2, 4, 4, 4, 4, 4, 4, 8, 8, 8]
    assert [block.out_stride for block in blocks] == [8, 8, 8, 24, 24, 24, 24, 24, 24, 24, 24, 24]


def test_the_network_is_built_from_the_plan():
    arch = dict(widths=(16, 32, 48, 48), depths=(1, 2, 2, 1), group_width=8)
    net = NFNet(arch, alpha=0.3, drop_path_rate=0.4, out_indices=(0, 1, 2))
    blocks = plan_blocks(resolve_arch('NFNet', arch), alpha=0.3, drop_path_rate=0.4)
    assert [len(stage) for stage in net.stages] == [1, 2, 2]
    for spec, module in zip(blocks, (block for stage in net.stages for block in stage)):
        assert module.conv0.input_scale == 1.7015043497085571 * spec.beta
        assert (module.alpha, module.drop_path_rate) == (0.3, spec.drop_path_rate)
        assert (module.conv1.in_channels, module.conv1.groups) == (spec.width, spec.groups)


@pytest.mark.parametrize(
    'kwargs, message',
    [
        (dict(alpha=-1), 'alpha=-1 must be a positive finite number'),
        (dict(alpha=float('inf')), 'alpha=inf'),
        (dict(drop_path_rate=1), r'drop_path_rate=1 must lie in \[0, 1\)'),
        (dict(drop_path_rate='0.1'), "drop_path_rate='0.1'"),
        (dict(strides=(1, 2)), r'strides=\(1, 2\) must have one entry for each of the 4 stages'),
        (dict(dilations=(1, 1, 0, 1)), r'dilations\[2\]=0 must be a positive integer'),
    ],
)
def test_bad_arguments(kwargs, message):
    with pytest.raises(UserError, match=message):
        plan('F0', **kwargs)


def test_groups_have_to_fit_every_block():
    arch = find_network('F0').arch
    with pytest.raises(UserError, match=r'group_width=\(128, 128, 128, 800\) is wider than the bottleneck of stage 3'):
        dataclasses.replace(arch, group_width=(128, 128, 128, 800))


@pytest.mark.parametrize('arch', ['F0', None, dict(depths=(1, 1, 1, 1))])
def test_only_a_design_is_planned(arch):
    with pytest.raises(UserError, match=r"must be an NFArch, such as resolve_arch\('NFNet', 'F0'\)"):
        plan_blocks(arch)
