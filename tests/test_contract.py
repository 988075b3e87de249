"""The names that users and their configs rely on."""

import inspect

import pytest
import torch
from mmengine import registry as root

import nfnet_mm

NAMES = {
    'MODELS': ['NFNet', 'NFResNet', 'NFRegNet', 'NFClsHead'],
    'OPTIM_WRAPPERS': ['AGCOptimWrapper', 'AmpAGCOptimWrapper'],
    'OPTIM_WRAPPER_CONSTRUCTORS': ['NFOptimWrapperConstructor'],
}


@pytest.mark.parametrize('scope', ['mmengine', 'mmdet', 'mmpretrain', 'mmseg'])
@pytest.mark.parametrize('registry, name', [(r, n) for r, names in NAMES.items() for n in names])
def test_registered(registry, name, scope):
    with getattr(root, registry).switch_scope_and_registry(scope) as current:
        found = current.get(f'nfnet_mm.{name}')
    assert found.__name__ == name
    assert found.__module__.startswith('nfnet_mm.')


@pytest.mark.parametrize(
    'arch',
    [*(f'F{n}' for n in range(8)), *(f'F{n}+' for n in range(8)), 'L0', *(f'ECA-L{n}' for n in range(4)), 'nano'],
)
def test_nfnet_names(arch):
    with torch.device('meta'):
        net = root.MODELS.build(dict(type='nfnet_mm.NFNet', arch=arch))
    assert net.out_strides == (4, 8, 16, 32)
    assert len(net.out_channels) == 4


def test_common_arguments():
    from nfnet_mm.models.backbones.base import NFBackbone

    parameters = inspect.signature(NFBackbone).parameters
    assert set(parameters) == {
        'arch',
        'in_channels',
        'out_indices',
        'frozen_stages',
        'strides',
        'dilations',
        'with_cp',
        'act',
        'alpha',
        'drop_path_rate',
        'init_cfg',
    }


def test_plan_and_names():
    from nfnet_mm.models.backbones import plan_blocks
    from nfnet_mm.models.backbones.arch import find_network

    parameters = ['arch', 'alpha', 'drop_path_rate', 'strides', 'dilations']
    assert list(inspect.signature(plan_blocks).parameters) == parameters
    network = find_network('nf_resnet50')
    assert (network.family, network.key, network.name) == ('NFResNet', '50', 'nf_resnet50')
    assert network.cfg == dict(type='nfnet_mm.NFResNet', depth=50)
    block = plan_blocks(network.arch)[3]
    assert (block.stage, block.index, block.transition, block.in_channels, block.out_channels) == (1, 0, True, 256, 512)
    assert (block.width, block.groups, block.stride, block.dilation, block.alpha) == (128, 1, 2, 1, 0.2)


def test_parameter_layout():
    net = root.MODELS.build(dict(type='nfnet_mm.NFNet', arch='nano', out_indices=(4,)))
    for name, parameter in net.named_parameters():
        assert parameter.dim() == {'gain': 1, 'skip_gain': 0, 'bias': 1}.get(name.rpartition('.')[2], parameter.dim())
    head = root.MODELS.build(dict(type='nfnet_mm.NFClsHead', num_classes=5, in_channels=256, dropout=0.2))
    assert [n for n, _ in head.named_parameters()] == ['fc.weight', 'fc.bias']
    assert float(head.fc.weight.std()) == pytest.approx(0.01, rel=0.1)


def test_agc_signature():
    from nfnet_mm.engine.agc import adaptive_clip_grad_

    assert list(inspect.signature(adaptive_clip_grad_).parameters)[:3] == ['params', 'clipping', 'eps']


def test_version():
    assert nfnet_mm.__version__.count('.') == 2
