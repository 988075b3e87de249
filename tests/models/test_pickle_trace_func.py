"""What others do with a network: pickle it, trace it and save the trace, transform it with torch.func."""

import io
import pickle

import pytest
import torch
from mmengine.registry import MODELS
from torch.fx.experimental.proxy_tensor import make_fx

from nfnet_mm.models.layers import WSConv2d, standardize_weight
from nfnet_mm.models.layers.activations import _FUNCTIONS, _GAINS, _OTHERS
from tests.golden import BACKBONES
from tests.stacks import needs_torch


def network(family, **kwargs):
    torch.manual_seed(0)
    net = MODELS.build(dict(BACKBONES[family], **kwargs)).train()
    for name, p in net.named_parameters():
        if 'skip_gain' in name:  # zero at first, which would hide the branches
            torch.nn.init.constant_(p, 0.5)
    return net


def loss_of(outputs):
    return sum((out * torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)).sum() for out in outputs)


@pytest.mark.parametrize('act', sorted({*_FUNCTIONS, *_GAINS, *_OTHERS}))
def test_every_named_activation_can_be_pickled(act):
    net = network('nf_resnet', act=act).eval()
    again = pickle.loads(pickle.dumps(net))
    x = torch.randn(1, 3, 32, 32)
    assert all(torch.equal(one, other) for one, other in zip(net(x), again(x)))


@pytest.mark.filterwarnings('ignore::torch.jit.TracerWarning', 'ignore::DeprecationWarning')
@pytest.mark.parametrize('family', BACKBONES)
def test_trace_can_be_saved(family):
    # in float64, as the gradient of a SkipInit gain is a sum that cancels
    net, x, file = network(family).double(), torch.randn(2, 3, 64, 64).double(), io.BytesIO()
    torch.jit.save(torch.jit.trace(net, x), file)
    file.seek(0)
    traced, other = torch.jit.load(file), torch.randn(2, 3, 64, 64).double()
    for ours, theirs in zip(traced(other), net(other)):
        torch.testing.assert_close(ours, theirs)
    loss_of(traced(other)).backward()
    loss_of(net(other)).backward()
    grads = dict(traced.named_parameters())
    for name, p in net.named_parameters():
        assert (grads[name].grad - p.grad).norm() <= 1e-11 * p.grad.norm(), name


@pytest.mark.parametrize('family', BACKBONES)
def test_torch_func(family):
    """Against backward() on one sample at a time, and against differences."""
    net, x = network(family).double(), torch.randn(3, 3, 32, 32, dtype=torch.float64)
    params = {name: p.detach() for name, p in net.named_parameters()}

    def loss(params, x):
        return loss_of(torch.func.functional_call(net, params, (x,)))

    per_sample = torch.func.vmap(torch.func.grad(loss), (None, 0))(params, x[:, None])
    for i in range(3):
        net.zero_grad()
        loss_of(net(x[i : i + 1])).backward()
        for name, p in net.named_parameters():
            torch.testing.assert_close(per_sample[name][i], p.grad, rtol=1e-6, atol=1e-9)
    tangent = {name: torch.randn_like(p) for name, p in params.items()}
    _, slope = torch.func.jvp(lambda params: loss(params, x[:1]), (params,), (tangent,))
    step = 1e-6
    ahead, behind = ({name: p + sign * step * tangent[name] for name, p in params.items()} for sign in (1, -1))
    expected = (loss(ahead, x[:1]) - loss(behind, x[:1])) / (2 * step)
    assert float(slope) == pytest.approx(float(expected), rel=1e-5)


def test_many_gains_for_one_weight():
    weight, gains = torch.randn(4, 2, 3, 3), torch.randn(5, 4)
    together = torch.func.vmap(standardize_weight, (None, 0))(weight, gains)
    torch.testing.assert_close(together, torch.stack([standardize_weight(weight, gain) for gain in gains]))


def test_export():
    net, x = network('nfnet').eval(), torch.randn(2, 3, 64, 64)
    exported = torch.export.export(net, (x,)).module()
    for ours, theirs in zip(exported(x), net(x)):
        torch.testing.assert_close(ours, theirs)


@needs_torch(2, 2, 'to be told of make_fx')
def test_make_fx():
    """A graph of forward and backward pass, at other images than it was traced with."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(WSConv2d(3, 4, 3, 2), torch.nn.GELU(), WSConv2d(4, 4, 1)).double()
    x, other = torch.randn(2, 2, 3, 9, 9, dtype=torch.float64)
    params = {name: p.detach() for name, p in net.named_parameters()}

    def gradients(params, x):
        params = {name: p.detach().requires_grad_() for name, p in params.items()}
        return torch.autograd.grad(loss_of(torch.func.functional_call(net, params, (x,))), list(params.values()))

    graph = make_fx(gradients)(params, x)
    for ours, expected in zip(graph(params, other), gradients(params, other)):
        torch.testing.assert_close(ours, expected, rtol=1e-10, atol=1e-12)
