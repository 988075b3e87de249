"""The check before training names the block of every seeded mistake, and is silent without one."""

import copy
import re

import pytest
import torch
from mmengine.registry import MODELS
from torch import nn
from torch.nn import functional as F

from nfnet_mm.analysis.signal_check import check_signal
from nfnet_mm.models.backbones import BNResNet, NFResNet
from nfnet_mm.models.backbones.arch import find_network, network_names
from nfnet_mm.models.backbones.block import NFBlock
from nfnet_mm.models.layers import WSConv2d

_SHAPE = dict(widths=(64, 64, 64, 64), depths=(2, 2, 2, 2), stem_channels=32)
WHERE = 'stages.1.1'


def _images(batch=8):
    return torch.randn(batch, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def _net(attention=None, **options):
    torch.manual_seed(0)
    return NFResNet(arch=dict(_SHAPE, attention=attention), **options)


class _PlainGate(nn.Module):
    """Attention as other packages have it: without the factor 2."""

    def __init__(self, attention):
        super().__init__()
        self.inner = attention

    def forward(self, x):
        return self.inner(x) / 2


class _Rescaled(NFBlock):
    """Stochastic depth as other packages have it."""

    def forward(self, x, recompute_acts=False):
        y = super().forward(x, recompute_acts)
        return x + (y - x) / (1 - self.drop_path_rate) if self.training else y


class _Twice(NFBlock):
    def forward(self, x, recompute_acts=False):
        out = self.act(x)
        out = self.conv1(self.act(self.act(self.conv0(out))))
        return x + self.conv2(self.act(out)) * self.branch_gain()


def _ws_without_scale(conv):
    """Weight standardisation without 1 / sqrt(fan-in), as mmcv's ConvWS."""

    class ConvWS(nn.Conv2d):
        def forward(self, x):
            w = self.weight.flatten(1)
            w = (w - w.mean(1, keepdim=True)) / w.std(1, keepdim=True)
            return self._conv_forward(x, w.view_as(self.weight), self.bias)

    return ConvWS(conv.in_channels, conv.out_channels, conv.kernel_size, padding=conv.padding)


def _wrong_gain(block):  # He's
    for conv in block.children():
        if isinstance(conv, WSConv2d):
            conv.input_scale *= 2**0.5 / 1.7139588594436646


def _set(name, value):
    return lambda block: setattr(block, name, value(block) if callable(value) else value)


def _no_beta(block):
    block.conv0.input_scale = 1.7139588594436646


def _he(block):
    for name in ('conv0', 'conv1', 'conv2'):
        conv = getattr(block, name)
        plain = nn.Conv2d(conv.in_channels, conv.out_channels, conv.kernel_size, padding=conv.padding, bias=False)
        nn.init.kaiming_normal_(plain.weight)
        setattr(block, name, plain)


def _other_dialect(block):
    for conv in (block.conv0, block.conv1, block.conv2):  # gains that hold gamma, as timm's conv outputs do
        nn.init.constant_(conv.gain, 1.7139588594436646)


def _cls(kind):
    return lambda block: setattr(block, '__class__', kind)


MISTAKES = {
    'the gain of He': (dict(), _wrong_gain, 'gain is of another activation'),
    'an activation with the gain of another': (dict(), lambda b: setattr(b, 'act', F.silu), 'activation is not that'),
    'Squeeze-Excite without 2': (dict(attention='se'), _set('attention', lambda b: _PlainGate(b.attention)), 'by 2'),
    'ECA without 2': (dict(attention='eca'), _set('attention', lambda b: _PlainGate(b.attention)), 'by 2'),
    'a plain conv': (dict(), _set('conv1', lambda b: nn.Conv2d(16, 16, 3, padding=1)), 'conv1 .Conv2d. has no scaled'),
    'standardised without fan-in': (dict(), _set('conv1', lambda b: _ws_without_scale(b.conv1)), 'conv1 .ConvWS. has'),
    'another alpha': (dict(), _set('alpha', 1.0), 'its alpha is 1'),
    'beta left out': (dict(), _no_beta, 'conv0 scales .* beta, 0.9806, is left out'),
    'He in place of standardisation': (dict(), _he, 'has no scaled weight standardisation'),
    'stochastic depth rescaled': (dict(drop_path_rate=0.3), _cls(_Rescaled), 'stochastic depth divides'),
    'BatchNorm left': (
        dict(),
        _set('conv2', lambda b: nn.Sequential(b.conv2, nn.BatchNorm2d(64))),
        'BatchNorm2d. norm',
    ),
    'two activations': (dict(act='silu'), _cls(_Twice), 'conv1 reads an activation of an activation'),
    'gains of another dialect': (dict(), _other_dialect, 'gains of conv0 are 1.71'),
    'a second zero': (dict(), lambda b: nn.init.zeros_(b.conv2.gain), 'gives nothing'),
}


@pytest.mark.parametrize('mistake', MISTAKES)
def test_a_mistake_is_named_with_its_block(mistake):
    options, make, cause = MISTAKES[mistake]
    net = _net(**options)
    assert check_signal(net, _images()) == []
    make(net.stages[1][1])
    found = check_signal(net, _images())
    assert [one.block for one in found] == [WHERE], found
    assert re.search(cause, str(found[0])), found[0]


def test_an_activation_changed_after_building():
    net = _net()
    net.act = F.silu
    for stage in net.stages:
        for block in stage:
            block.act = F.silu
    found = check_signal(net, _images())
    assert found[0].block == 'act' and 'the gain is 1.714' in str(found[0])


@pytest.mark.parametrize('name', ['nfnet_nano', 'timm/test_nfnet', 'timm/nf_resnet26', 'nf_regnet_b0'])
def test_silent_without_a_mistake(name):
    torch.manual_seed(0)
    net = MODELS.build(dict(find_network(name).cfg, drop_path_rate=0.2))
    before = copy.deepcopy(net.state_dict())
    assert check_signal(net, _images()) == []
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


@pytest.mark.slow
@pytest.mark.parametrize('name', [name for name in network_names() if find_network(name).arch.method == 'nf'])
def test_silent_on_every_network(name):
    torch.manual_seed(0)
    assert check_signal(MODELS.build(find_network(name).cfg), _images(16)) == []


def test_other_options_are_no_mistakes():
    for options in (dict(alpha=0.5), dict(act='silu'), dict(act=torch.tanh), dict(dilations=(1, 1, 1, 2))):
        assert check_signal(_net(**options), _images()) == []


def test_networks_without_a_plan():
    assert check_signal(BNResNet(arch=dict(_SHAPE)), _images()) == []
    with torch.no_grad():
        net = _explosive()
    assert 'the variance goes from' in str(check_signal(net, _images())[0])


def _explosive():
    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1, self.conv2 = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)

        def forward(self, x):
            return x + self.conv2(F.relu(self.conv1(x))) * 30

    return nn.Sequential(nn.Conv2d(3, 8, 1), *[Residual() for _ in range(8)])
