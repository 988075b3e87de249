"""One stage as a module of its own: the backbone's own computation and weights."""

import pickle

import pytest
import torch
from mmengine.registry import MODELS

from nfnet_mm.converters import ConversionError, from_deepmind, to_timm
from nfnet_mm.models import NFNet, NFRegNet, NFResNet, NFStage
from tests.converters.networks import deepmind_tree
from tests.models.test_backbones import random_gains

NETWORKS = {
    'nfnet': dict(type='nfnet_mm.NFNet', arch=dict(widths=(16, 32, 48, 48), depths=(1, 2, 1, 2), group_width=8)),
    'nf_resnet': dict(type='nfnet_mm.NFResNet', arch=dict(widths=(16, 32, 64, 64), depths=(1, 2, 1, 3))),
    'nf_regnet': dict(type='nfnet_mm.NFRegNet', arch=dict(widths=(16, 24, 32, 48), depths=(1, 1, 2, 2))),
    'timm': dict(type='nfnet_mm.NFNet', arch='timm/test_nfnet'),
}


@pytest.mark.parametrize('stage, stride, dilation', [(3, 2, 1), (3, 1, 2), (2, 2, 1), (1, 3, 1), (0, 1, 1)])
@pytest.mark.parametrize('network', NETWORKS)
def test_is_the_backbones_own_stage(network, stage, stride, dilation):
    cfg = dict(NETWORKS[network], alpha=0.3, drop_path_rate=0.4, act='silu')
    strides, dilations = [1, 2, 2, 2], [1, 1, 1, 1]
    strides[stage], dilations[stage] = stride, dilation
    net = random_gains(MODELS.build(dict(cfg, strides=strides, dilations=dilations)))
    alone = MODELS.build(
        dict(type='nfnet_mm.NFStage', backbone=cfg, stage=stage, stride=stride, dilation=dilation, activate=False)
    )
    keys = {k: v for k, v in net.state_dict().items() if k.startswith(f'stages.{stage}.')}
    alone.load_state_dict(keys)  # strictly: the names are the backbone's
    rates = [[block.drop_path_rate for block in m.stages[i]] for m, i in ((net, stage), (alone, str(stage)))]
    assert rates[0] == rates[1] and (stage == 0 or rates[0][0] > 0)
    x = torch.randn(2, 3, 65, 64)
    for mode in (False, True):
        net.train(mode), alone.train(mode)
        if stage:
            with torch.no_grad():
                inputs = net(x)[stage - 1]
        else:
            inputs = net.stem(x).detach()
        torch.manual_seed(0)  # of stochastic depth
        expected = inputs
        for block in net.stages[stage]:
            expected = block(expected)
        torch.manual_seed(0)
        assert torch.equal(alone(inputs), expected)
        if not mode:
            assert torch.equal(expected, net(x)[stage])
            alone.activate = True
            scale = net.feature_gain
            assert torch.equal(alone(inputs), torch.nn.functional.silu(expected) * scale)
            assert scale == (1 if network == 'timm' else pytest.approx(1.7881293296813965))
            alone.activate = False
    assert expected.shape[1] == alone.out_channels == net.out_channels[stage]
    assert inputs.shape[1] == alone.in_channels


def test_the_activated_feature_is_the_classification_feature():
    """Where a family has no final conv, activate=True is what its classifier reads."""
    cfg = NETWORKS['nf_resnet']
    net = random_gains(MODELS.build(dict(cfg, out_indices=(2, 3, 4)))).eval()
    head = NFStage(cfg).eval()
    head.load_state_dict({k: v for k, v in net.state_dict().items() if k.startswith('stages.3.')})
    third, _, feature = net(torch.randn(1, 3, 64, 64))
    assert torch.equal(head(third), feature)


def test_recomputation_and_no_regions():
    x, gradients = torch.randn(3, 48, 14, 14), []
    head = random_gains(NFStage(dict(NETWORKS['nfnet'], drop_path_rate=0.5))).train()
    for head.with_cp in (False, True):
        head.zero_grad()
        torch.manual_seed(1)
        head(x).square().sum().backward()
        gradients.append([p.grad for p in head.parameters()])
    assert all(map(torch.equal, *gradients)) and all(float(g.abs().sum()) > 0 for g in gradients[0])
    assert head(x[:0]).shape == (0, 48, 7, 7)


@pytest.fixture
def deepmind():
    return deepmind_tree()


@pytest.mark.parametrize('form', ['deepmind', 'timm', 'classifier', 'backbone'])
def test_takes_its_stage_from_any_file(deepmind, tmp_path, form):
    ours = from_deepmind(deepmind)
    path = tmp_path / 'weights.bin'
    if form == 'deepmind':
        path.write_bytes(pickle.dumps(deepmind))
    else:
        torch.save(
            dict(
                timm=lambda: to_timm(ours),
                classifier=lambda: dict(state_dict=ours),
                backbone=lambda: {k.removeprefix('backbone.'): v for k, v in ours.items() if k.startswith('backbone.')},
            )[form](),
            path,
        )
    arch = dict(widths=(8, 16, 16, 24), depths=(1, 2, 1, 1), group_width=4)
    for stage in (3, 1):
        head = NFStage(
            dict(type='nfnet_mm.NFNet', arch=arch),
            stage=stage,
            init_cfg=dict(type='nfnet_mm.NFPretrained', checkpoint=str(path)),
        )
        head.init_weights()
        assert len(head.state_dict()) > 10
        assert all(torch.equal(v, ours[f'backbone.{k}']) for k, v in head.state_dict().items())
    wrong = NFStage(
        dict(type='nfnet_mm.NFNet', arch=dict(arch, depths=(1, 2, 1, 2))),
        init_cfg=dict(type='nfnet_mm.NFPretrained', checkpoint=str(path)),
    )
    with pytest.raises(ConversionError, match=r'missing in the file: stages\.3\.1\.'):
        wrong.init_weights()


@pytest.mark.parametrize(
    'kwargs, message',
    [
        (dict(backbone='F0'), "backbone='F0' must be a config such as"),
        (dict(backbone=dict(arch='F0')), 'must be a config such as'),
        (
            dict(backbone=dict(type='nfnet_mm.NFNet', frozen_stages=1)),
            r'backbone.frozen_stages=1 is of a whole network',
        ),
        (dict(backbone=dict(type='nfnet_mm.NFNet', out_indices=(3,))), r'backbone.out_indices=\(3,\) is of a whole'),
        (dict(backbone=dict(type='nfnet_mm.NFNet', arch='F9')), "NFNet arch 'F9' is unknown"),
        (dict(stage=4), 'stage=4 is out of range: 0-3'),
        (dict(stage=True), 'stage=True'),
        (dict(stride=0), 'stride=0 must be a positive integer'),
        (dict(dilation=1.5), 'dilation=1.5'),
    ],
)
def test_bad_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        NFStage(**dict(dict(backbone=NETWORKS['nfnet']), **kwargs))


def test_wrong_features():
    with pytest.raises(ValueError, match=r'shape \(N, 48, H, W\), the input of stage 3, got \(2, 3, 8, 8\)'):
        NFStage(NETWORKS['nfnet'])(torch.zeros(2, 3, 8, 8))


@pytest.mark.parametrize('family, arch', [(NFNet, 'F0'), (NFResNet, 50), (NFRegNet, 'B0')])
def test_widths_of_the_papers(family, arch):
    key = 'depth' if family is NFResNet else 'arch'
    with torch.device('meta'):
        head = NFStage({'type': f'nfnet_mm.{family.__name__}', key: arch})
        net = family(arch)
    assert (head.in_channels, head.out_channels) == net.out_channels[2:]
    assert {k: v.shape for k, v in head.state_dict().items()} == {
        k: v.shape for k, v in net.state_dict().items() if k.startswith('stages.3.')
    }
