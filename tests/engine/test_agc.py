import math

import pytest
import torch
from torch import nn

from nfnet_mm.engine import adaptive_clip_grad_


def by_definition(weight, grad, clipping, eps, transposed=0):
    """NFNets, equation 3, one unit at a time in float64."""
    grad, weight = grad.double().clone(), weight.double()
    if grad.dim() < 2:
        units = [...]
    elif transposed:
        per_in, per_out = grad.shape[0] // transposed, grad.shape[1]
        units = [(slice(g * per_in, (g + 1) * per_in), o) for g in range(transposed) for o in range(per_out)]
    else:
        units = list(range(grad.shape[0]))
    for unit in units:
        limit = clipping * max(float(weight[unit].norm()), eps)
        norm = float(grad[unit].norm())
        if norm > limit:
            grad[unit] = grad[unit] * limit / max(norm, 1e-6)
    return grad


def parameter(shape, seed=0, spread=2.0, dtype=torch.float32):
    """Gradients of very different sizes, so that some units are clipped and some are not."""
    generator = torch.Generator().manual_seed(seed)
    p = nn.Parameter(torch.randn(shape, generator=generator).to(dtype))
    grad = torch.randn(shape, generator=generator)
    if grad.dim():
        grad = grad * torch.logspace(-4, spread, grad.shape[0]).view(-1, *[1] * (grad.dim() - 1))
    p.grad = grad.to(dtype)
    return p


@pytest.mark.parametrize('shape', [(), (7,), (5, 3), (6, 2, 3, 3), (4, 3, 5), (2, 3, 2, 2, 2)])
@pytest.mark.parametrize('clipping, eps', [(0.01, 1e-3), (0.16, 2.0)])
def test_against_the_definition(shape, clipping, eps):
    p = parameter(shape)
    expected = by_definition(p.data, p.grad, clipping, eps)
    stats = adaptive_clip_grad_([p], clipping, eps)
    assert torch.allclose(p.grad.double(), expected, rtol=1e-5, atol=0)
    assert stats.units == (shape[0] if len(shape) > 1 else 1)
    assert bool(stats.finite)


def test_channels_last_weights():
    p = parameter((6, 4, 3, 3))
    expected = by_definition(p.data, p.grad, 0.01, 1e-3)
    p.data = p.data.contiguous(memory_format=torch.channels_last)
    p.grad = p.grad.contiguous(memory_format=torch.channels_last)
    adaptive_clip_grad_(p, 0.01, 1e-3)
    assert torch.allclose(p.grad.double(), expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize('groups', [1, 2])
def test_transposed_convs_clip_their_outputs(groups):
    conv = nn.ConvTranspose2d(4, 6, 3, groups=groups)
    conv.weight.grad = torch.randn_like(conv.weight) * torch.logspace(-5, 1, 6 // groups).view(1, -1, 1, 1)
    expected = by_definition(conv.weight.data, conv.weight.grad, 0.01, 1e-3, transposed=groups)
    stats = adaptive_clip_grad_([conv.weight], 0.01, 1e-3, transposed={conv.weight: groups})
    assert stats.units == 6
    assert 0 < int(stats.clipped) < 6
    assert torch.allclose(conv.weight.grad.double(), expected, rtol=1e-5, atol=0)


def test_a_gain_vector_is_one_unit():
    """Unlike a (C, 1, 1, 1) gain, whose elements would each be clipped by themselves."""
    p = nn.Parameter(torch.tensor([3.0, 4.0]))
    p.grad = torch.tensor([0.6, 0.8])
    adaptive_clip_grad_([p], clipping=0.1, eps=1e-3)
    assert p.grad.tolist() == pytest.approx([0.3, 0.4])
    adaptive_clip_grad_([p], clipping=0.1, eps=10.0)  # eps is the larger of the two now: limit 1.0
    assert p.grad.tolist() == pytest.approx([0.3, 0.4])


def test_statistics():
    p = nn.Parameter(torch.ones(4, 1))
    p.grad = torch.tensor([[0.005], [0.02], [0.1], [0.0]])
    stats = adaptive_clip_grad_([p], 0.01, 1e-3)
    assert (stats.units, int(stats.clipped)) == (4, 2)
    assert float(stats.min_scale) == pytest.approx(0.1)
    assert p.grad.flatten().tolist() == pytest.approx([0.005, 0.01, 0.01, 0.0])


def test_low_precision_gradients():
    p = parameter((6, 5), dtype=torch.bfloat16, spread=1.0)
    expected = by_definition(p.data, p.grad, 0.01, 1e-3)
    adaptive_clip_grad_([p], 0.01, 1e-3)
    assert p.grad.dtype == torch.bfloat16
    assert torch.allclose(p.grad.double(), expected, rtol=2**-7)


def test_parameters_without_gradient():
    a, b = parameter((3, 3)), nn.Parameter(torch.ones(2))
    assert adaptive_clip_grad_([a, b]).units == 3
    assert b.grad is None
    assert adaptive_clip_grad_([b]).units == 0


def test_non_finite_units_are_reported():
    p = parameter((3, 4))
    p.grad[1, 2] = math.nan
    assert not bool(adaptive_clip_grad_([p]).finite)
    assert math.isnan(float(p.grad[1, 2]))


@pytest.mark.parametrize(
    'kwargs, message',
    [
        (dict(clipping=0), 'AGC clipping=0 must be a positive finite number'),
        (dict(clipping=-0.01), 'clipping=-0.01'),
        (dict(clipping=math.nan), 'clipping=nan'),
        (dict(clipping=math.inf), 'clipping=inf'),
        (dict(clipping='0.01'), "clipping='0.01'"),
        (dict(eps=0.0), 'AGC eps=0.0'),
    ],
)
def test_bad_arguments(kwargs, message):
    p = parameter((3, 3))
    before = p.grad.clone()
    with pytest.raises(ValueError, match=message):
        adaptive_clip_grad_([p], **kwargs)
    assert torch.equal(p.grad, before)
