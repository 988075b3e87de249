"""Folded networks against the networks themselves, and the weights of a folded conv against a definition."""

import copy

import pytest
import torch
from torch import nn

from nfnet_mm.deploy import fold
from nfnet_mm.errors import UserError
from nfnet_mm.models.backbones import BNResNet, NFNet, NFRegNet, NFResNet
from nfnet_mm.models.backbones.stage import NFStage
from nfnet_mm.models.layers import WSConv2d

SMALL = dict(widths=(16, 32, 32, 48), depths=(1, 2, 1, 1))
NETWORKS = {
    'nfnet': lambda: NFNet(dict(SMALL, group_width=8), out_indices=(0, 1, 2, 3, 4)),
    'eca': lambda: NFNet(dict(SMALL, group_width=8, attention='eca'), out_indices=(1, 4)),
    'timm': lambda: NFNet(dict(SMALL, group_width=8, dialect='timm', padding='symmetric', gain_in_conv=True)),
    'without SkipInit': lambda: NFNet(dict(SMALL, group_width=8, skip_init=False), drop_path_rate=0.5),
    'nf_resnet': lambda: NFResNet(SMALL, out_indices=(3, 4)),
    'nf_seresnet': lambda: NFResNet(dict(SMALL, attention='se')),
    'nf_regnet': lambda: NFRegNet(SMALL, out_indices=(0, 4), strides=(2, 1, 2, 1), dilations=(1, 1, 2, 1)),
    'stage': lambda: NFStage(dict(type='nfnet_mm.NFResNet', arch=SMALL), stage=1),
}


def random_network(name):
    torch.manual_seed(0)
    net = NETWORKS[name]()
    for p in net.parameters():
        nn.init.normal_(p, 0.5, 0.3) if p.dim() < 2 else None
    return net


@pytest.mark.parametrize('last', [False, True], ids=['contiguous', 'channels-last'])
@pytest.mark.parametrize('name', NETWORKS)
def test_the_same_function(name, last):
    """In float32 at the networks' own rounding: no further from the float64 network than 2e-6."""
    net = random_network(name).train()
    before = copy.deepcopy(net.state_dict())
    x = torch.randn(2, 16 if name == 'stage' else 3, 65, 50)
    folded = fold(net)
    if last:
        folded, x = folded.to(memory_format=torch.channels_last), x.contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        ours, expected = folded(x), copy.deepcopy(net).eval().double()(x.double())
    for one, other in zip(*((out,) if name == 'stage' else out for out in (ours, expected))):
        assert (one - other).norm() <= 2e-6 * other.norm()
    assert net.training and all(torch.equal(before[key], value) for key, value in net.state_dict().items())


def test_the_weights():
    """Of a conv under the authors' floor, too: (w - mean) * gain * scale / max(norm, 0.01)."""
    conv = WSConv2d(3, 2, 3, input_scale=1.5)
    with torch.no_grad():
        conv.gain.copy_(torch.tensor([2.0, 3.0]))
        conv.weight[1] *= 1e-4
    folded = fold(nn.Sequential(conv))[0]
    centred = (conv.weight - conv.weight.mean((1, 2, 3), keepdim=True)).detach()
    norms = centred.flatten(1).norm(dim=1).clamp(min=0.01).view(2, 1, 1, 1)
    torch.testing.assert_close(folded.weight, centred / norms * torch.tensor([3.0, 4.5]).view(2, 1, 1, 1))
    assert not any(p.requires_grad for p in folded.parameters())
    assert list(folded.state_dict()) == ['weight', 'bias']


def test_nothing_is_drawn():
    net = random_network('nfnet')
    state = torch.get_rng_state()
    fold(net)
    assert torch.equal(torch.get_rng_state(), state)


def test_no_gains_are_left_and_convs_are_fewer_parameters():
    net = random_network('nfnet')
    folded = fold(net)
    gains = sum(p.numel() for name, p in net.named_parameters() if name.endswith('gain'))
    assert gains == sum(p.numel() for p in net.parameters()) - sum(p.numel() for p in folded.parameters())


def test_half_precision_is_folded_in_float32():
    conv = WSConv2d(3, 8, 3).to(torch.bfloat16)
    wide = WSConv2d(3, 8, 3)
    wide.load_state_dict(conv.state_dict())
    assert torch.equal(fold(nn.Sequential(conv))[0].weight, wide.standardized_weight().to(torch.bfloat16))


def test_a_shared_conv_stays_shared():
    conv = WSConv2d(4, 4, 3)
    folded = fold(nn.Sequential(conv, nn.ReLU(), conv))
    assert folded[0] is folded[2]


@pytest.mark.parametrize('name,place', [('nfnet', 'conv1'), ('nfnet', 'conv2'), ('nf_resnet', 'conv2')])
def test_a_replaced_conv_is_kept(name, place):
    net = random_network(name).eval()
    block = net.stages[1][1]
    old = getattr(block, place)
    kernel = old.kernel_size[0]
    setattr(block, place, nn.Conv2d(old.in_channels, old.out_channels, kernel, padding=kernel // 2))
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        for one, other in zip(fold(net)(x), net(x)):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_training_is_refused():
    folded = fold(random_network('nf_resnet'))
    assert not folded.eval().training
    with pytest.raises(UserError, match='a folded network cannot be trained: .* Train the one that'):
        folded.train()


@pytest.mark.parametrize(
    'model', [lambda: nn.Conv2d(3, 3, 1), lambda: BNResNet(SMALL), lambda: fold(random_network('eca'))]
)
def test_nothing_to_fold(model):
    model = model()
    with pytest.raises(UserError, match=f'nothing to fold: {type(model).__name__} has no conv with weight'):
        fold(model)
