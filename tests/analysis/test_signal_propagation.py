"""Signal propagation: the authors' statistics, the prediction, and nothing left behind in the model."""

import contextlib

import numpy as np
import pytest
import torch
from mmengine.registry import MODELS
from torch import nn

from nfnet_mm.analysis.predicted import activated_variance, predict
from nfnet_mm.analysis.signal_blocks import circular_padding, find_blocks, open_branches
from nfnet_mm.analysis.signal_propagation import channel_statistics, signal_propagation, write_csv
from nfnet_mm.errors import UserError
from nfnet_mm.models.backbones import BNResNet, NFNet, NFResNet, plan_blocks
from nfnet_mm.models.backbones.arch import find_network
from nfnet_mm.models.layers.activations import activation_gain, get_activation
from tests.stacks import needs_torch

from ..golden import BACKBONES, BASELINES, Golden


@pytest.mark.parametrize('family', [*BACKBONES, *BASELINES])
def test_statistics_of_the_authors(family):
    golden = Golden(family)
    rows = signal_propagation(golden.classifier(), golden.input)
    for i, row in enumerate(rows):
        for name, n in (('avg_sq_mean', i + 1), ('avg_var', i + 1), ('res_avg_var', i)):
            assert getattr(row, name) == pytest.approx(float(golden[f'metric|{name}_{n}']), rel=1e-5)
    assert f'metric|res_avg_var_{len(rows)}' not in golden.arrays


def test_statistics_by_numpy():
    x = torch.randn(3, 4, 5, 6) * 2 + 1
    y = x.permute(0, 2, 3, 1).double().numpy()
    expected = np.mean(np.mean(y, axis=(0, 1, 2)) ** 2), np.mean(np.var(y, axis=(0, 1, 2)))
    assert channel_statistics(x) == pytest.approx(expected, rel=1e-6)
    assert channel_statistics(x.permute(0, 2, 3, 1).flatten(1, 2)) == pytest.approx(expected, rel=1e-6)  # tokens
    assert channel_statistics(x.half()) == pytest.approx(channel_statistics(x.half().float()), rel=1e-6)


@pytest.mark.parametrize('training', [True, False])
def test_the_model_is_as_it_was(training):
    net = BNResNet(arch=dict(widths=(8, 16, 16, 16), depths=(1, 1, 1, 1), stem_channels=4), drop_path_rate=0.5)
    net.train(training).stages[1].eval()
    modes = [module.training for module in net.modules()]
    before, random = {k: v.clone() for k, v in net.state_dict().items()}, torch.get_rng_state()
    with open_branches(net), circular_padding(net):
        first = signal_propagation(net, torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)))
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert [module.training for module in net.modules()] == modes and torch.equal(torch.get_rng_state(), random)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())
    assert [c.padding for c in net.modules() if isinstance(c, nn.Conv2d)][:2] == [(3, 3), (0, 0)]
    assert all(p.grad is None for p in net.parameters()) and len(first) == 4


def test_skip_init_is_opened_and_closed_again():
    for net in (NFNet('nano'), NFNet('timm/test_nfnet')):
        images = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
        closed = signal_propagation(net, images)
        with open_branches(net):
            opened = signal_propagation(net, images)
        assert all(o.avg_var > c.avg_var for o, c in zip(opened, closed))
        if net.arch.skip_init:  # the branch is measured before what scales it
            assert closed[0].res_avg_var == pytest.approx(opened[0].res_avg_var, rel=1e-5)
        assert [row.avg_var for row in signal_propagation(net, images)] == [row.avg_var for row in closed]


def test_batch_norms_that_begin_at_zero_are_opened_and_closed_again():
    net = BNResNet(arch=dict(widths=(8, 16, 16, 16), depths=(1, 1, 1, 1), stem_channels=4), preact=False)
    last = [block.bn2 for stage in net.stages for block in stage]
    for norm in last:
        nn.init.zeros_(norm.weight)
    images = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert all(row.res_avg_var == 0 for row in signal_propagation(net, images))
    with open_branches(net):
        assert all(row.res_avg_var == pytest.approx(1, abs=0.01) for row in signal_propagation(net, images))
    assert not any(norm.weight.any() for norm in last)


def test_a_wrong_gain_is_not_predicted():
    images, predicted = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0)), []
    for factor in (1.0, 0.8):
        torch.manual_seed(0)
        net = NFResNet(arch=dict(widths=(32, 32, 32, 32), depths=(1, 1, 1, 1), stem_channels=8))
        net.stages[0][0].conv_shortcut.input_scale *= factor
        predicted.append([row.predicted_var for row in signal_propagation(net, images)])
    assert predicted[1] == pytest.approx(predicted[0], rel=1e-4)


def test_prediction_by_sampling():
    """Of an activation against samples, of the blocks against the papers' formula, which is for homogeneous ones."""
    act = get_activation('gelu')
    x = torch.randn(1_000_000, generator=torch.Generator().manual_seed(0)) * 1.7
    assert activated_variance(act, 1.7**2) == pytest.approx(float(act(x).var()), rel=5e-3)
    plan = plan_blocks(find_network('nfnet_f1').arch)
    for one, spec in zip(predict(plan, act, activation_gain('gelu')), plan):
        assert one.variance == pytest.approx(spec.out_variance, rel=0.06)


def _worst(name, size, batch, circular, planned):
    torch.manual_seed(0)
    net = MODELS.build(find_network(name).cfg)
    images = torch.randn(batch, 3, size, size)
    with open_branches(net), circular_padding(net) if circular else contextlib.nullcontext():
        rows = signal_propagation(net, images)
    return max(abs(row.avg_var / (row.planned_var if planned else row.predicted_var) - 1) for row in rows)


def test_measured_variance_is_the_predicted_one():
    """Zeros at the borders take variance away in small images; without them all blocks keep to the prediction."""
    assert _worst('nf_resnet50', 64, 8, circular=True, planned=False) < 0.1
    assert _worst('nf_resnet50', 64, 8, circular=True, planned=True) < 0.1


@pytest.mark.slow
@pytest.mark.parametrize(
    'name', [*(f'nfnet_f{n}' for n in range(7)), *(f'nf_resnet{n}' for n in (50, 101, 152, 200, 288))]
)
def test_measured_variance_of_every_network(name):
    assert _worst(name, 128, 4, circular=True, planned=False) < 0.1
    if name.startswith('nf_resnet'):  # without average pooling the papers' formula holds, too
        assert _worst(name, 128, 4, circular=True, planned=True) < 0.1


def test_pooling_leaves_a_quarter_of_noise():
    """Why the papers' formula does not hold behind a pooled shortcut."""
    x = torch.randn(2, 64, 64, 64, generator=torch.Generator().manual_seed(0))
    assert channel_statistics(nn.functional.avg_pool2d(x, 2))[1] == pytest.approx(0.25, rel=0.01)


def test_any_backbone(tmp_path):
    pytest.importorskip('mmdet')
    from mmengine.registry import init_default_scope

    init_default_scope('mmdet')
    net = MODELS.build(dict(type='mmdet.ResNet', depth=18, base_channels=8, stem_channels=8))
    rows = signal_propagation(net, torch.randn(2, 3, 64, 64))
    assert [row.block for row in rows[:3]] == ['layer1.0', 'layer1.1', 'layer2.0'] and len(rows) == 8
    # Figure 11: BatchNorm at the end of the branch keeps it at variance 1
    assert all(row.res_avg_var == pytest.approx(1, abs=0.01) for row in rows)
    write_csv(tmp_path / 'x.csv', [('resnet', rows)])
    lines = (tmp_path / 'x.csv').read_text().splitlines()
    assert lines[0] == 'model,block,stage,index,avg_sq_mean,avg_var,res_avg_var,predicted_var,planned_var'
    assert lines[1].startswith('resnet,layer1.0,0,0,') and lines[1].endswith(',,') and len(lines) == 9


@pytest.mark.parametrize(
    'dtype', [pytest.param(torch.float16, marks=needs_torch(2, 2, 'convs of float16 on a CPU')), torch.bfloat16]
)
def test_half_precision(dtype):
    torch.manual_seed(0)
    net = NFResNet(arch=dict(widths=(32, 32, 32, 32), depths=(1, 1, 1, 1), stem_channels=8))
    images = torch.randn(2, 3, 32, 32)
    exact, half = signal_propagation(net, images), signal_propagation(net.to(dtype), images)
    assert all(a.avg_var == pytest.approx(b.avg_var, rel=0.03) for a, b in zip(half, exact))


def test_errors_are_one_line():
    with pytest.raises(UserError, match=r'got NFNet and \(3, 8, 8\)'):
        signal_propagation(NFNet('nano'), torch.zeros(3, 8, 8))
    with pytest.raises(UserError, match='has no blocks'):
        signal_propagation(nn.Conv2d(3, 3, 1), torch.zeros(1, 3, 8, 8))
    assert find_blocks(NFNet('nano'))[0].spec.out_variance == 1.04
