import torch
from torch import nn

from nfnet_mm.engine.contiguous import keep_operators_contiguous


class Operator(nn.Module):
    """Reads memory as mmcv's CUDA kernels do: as if it were contiguous."""

    __module__ = 'mmcv.ops.made_up'

    def forward(self, features, rois, scale=1.0, others=()):
        return [x.as_strided(x.shape, torch.empty(x.shape).stride()) * scale for x in (features, *others)]


def test_channels_last_features_are_read_as_what_they_are():
    net = nn.ModuleDict(dict(roi=Operator(), conv=nn.Conv2d(2, 2, 1)))
    features = torch.arange(24.0).view(1, 2, 3, 4)
    last = features.contiguous(memory_format=torch.channels_last)
    assert not torch.equal(net['roi'](last, None)[0], features)  # what the kernels do
    for _ in range(2):  # once is enough, and twice no harm
        keep_operators_contiguous(net)
    assert len(net['roi']._forward_pre_hooks) == 1 and not net['conv']._forward_pre_hooks
    for out in (*net['roi'](last, None, 1.0, [last]), *net['roi'](features=last, rois=None, others=(last,))):
        assert torch.equal(out, features)


def test_gradients_reach_the_features():
    net = Operator()
    keep_operators_contiguous(net)
    features = torch.randn(1, 2, 3, 4).contiguous(memory_format=torch.channels_last).requires_grad_()
    weight = torch.randn(1, 2, 3, 4)
    (net(features, None)[0] * weight).sum().backward()
    torch.testing.assert_close(features.grad, weight)
