"""NFNets with BatchNorm, for which there are no arrays of the authors', against a forward pass written out."""

import pytest
import torch
from torch.nn import functional as F

from nfnet_mm.models import BNNFNet
from tests.golden import BACKBONES, relative


def by_hand(net, x):
    """A BNNFNet in eval mode, by its state dict: the outputs of the stages and the feature."""
    state = net.state_dict()

    def conv(name, x, stride=1, groups=1):
        kernel = state[f'{name}.weight'].shape[-1]
        pads = []
        for size in (x.shape[3], x.shape[2]):
            total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
            pads += [total // 2, total - total // 2]
        return F.conv2d(F.pad(x, pads), state[f'{name}.weight'], None, stride, 0, 1, groups)

    def norm(name, x):
        mean, var, weight, bias = (
            state[f'{name}.{leaf}'].view(-1, 1, 1) for leaf in ('running_mean', 'running_var', 'weight', 'bias')
        )
        return (x - mean) / (var + 1e-5).sqrt() * weight + bias

    def active(name, x):
        return F.gelu(norm(name, x), approximate='tanh')

    arch, outs = net.arch, []
    x = conv('stem.conv0', x, 2)
    for i in range(1, len(arch.stem_channels)):
        x = conv(f'stem.conv{i}', active(f'stem.bn{i - 1}', x), arch.stem_strides[i])
    for stage, blocks in enumerate(net.stages):
        for index in range(len(blocks)):
            at, stride = f'stages.{stage}.{index}', arch.strides[stage] if index == 0 else 1
            groups = state[f'{at}.conv1.weight'].shape[0] // state[f'{at}.conv1.weight'].shape[1]
            out = active(f'{at}.bn0', x)
            if index == 0:
                x = F.avg_pool2d(out, stride, ceil_mode=True, count_include_pad=False) if stride > 1 else out
                x = conv(f'{at}.conv_shortcut', x)
            out = conv(f'{at}.conv1', active(f'{at}.bn1', conv(f'{at}.conv0', out)), stride, groups)
            out = conv(f'{at}.conv1b', active(f'{at}.bn1b', out), 1, groups)
            out = conv(f'{at}.conv2', active(f'{at}.bn2', out))
            fc = [state[f'{at}.attention.fc{i}.{leaf}'] for i in (1, 2) for leaf in ('weight', 'bias')]
            hidden = torch.relu(F.linear(out.mean((2, 3)), *fc[:2]))
            x = x + out * torch.sigmoid(F.linear(hidden, *fc[2:]))[..., None, None]
        outs.append(x)
    return [*outs, active('final_bn', conv('final_conv', x))]


@pytest.mark.parametrize('size', [(64, 64), (63, 50)])
def test_bn_nfnet_by_hand(size):
    torch.manual_seed(0)
    net = BNNFNet(BACKBONES['nfnet']['arch'], out_indices=(0, 1, 2, 3, 4)).double()
    for p in net.parameters():
        p.data += 0.1 * torch.randn_like(p)
    x = torch.randn(8, 3, *size, dtype=torch.float64)
    net.train()(x)  # for the averages
    with torch.no_grad():
        for ours, expected in zip(net.eval()(x), by_hand(net, x), strict=True):
            assert relative(ours, expected) < 1e-12
