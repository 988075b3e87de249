"""The Triton kernel, the kernel for the CPU and the flat form of AGC, against the form that goes tensor by tensor.

Where there is no GPU, the kernel runs in Triton's interpreter: in a process of its own, as that changes Triton.
"""

import math
import os
import subprocess
import sys

import pytest
import torch
from torch import nn

from nfnet_mm import cpu_kernels
from nfnet_mm.analysis.launches import count_launches
from nfnet_mm.engine.agc.cpu_kernel import clip_by_cpu_kernel_
from nfnet_mm.engine.agc.flat import clip_flat_
from nfnet_mm.engine.agc.kernel import clip_by_kernel_
from nfnet_mm.engine.agc.units import Grads, limits_of, scale_, unit_factors, unit_norms

INTERPRETED = os.environ.get('TRITON_INTERPRET') == '1'
DEVICE = 'cuda' if torch.cuda.is_available() and not INTERPRETED else 'cpu'
ALL_TYPES = [clip_flat_] + [clip_by_kernel_] * (INTERPRETED or DEVICE == 'cuda')
FORMS = ALL_TYPES + [clip_by_cpu_kernel_] * (cpu_kernels.state() == 'work' and DEVICE == 'cpu')
# shape, groups of a transposed conv, memory format of gradient and weight
CASES = [
    ((), 0, None),
    ((7,), 0, None),
    ((3000,), 0, None),
    ((5, 3), 0, None),
    ((3, 2100), 0, None),
    ((6, 2, 3, 3), 0, None),
    ((6, 4, 3, 3), 0, 'both'),
    ((6, 4, 3, 3), 0, 'grad'),
    ((1, 4, 3, 3), 0, 'weight'),
    ((4, 3, 5), 0, None),
    ((4, 6, 3, 3), 1, None),
    ((4, 3, 2, 2), 2, None),
    ((4, 3, 2, 2), 2, 'both'),
    ((4, 3, 5), 2, None),
]


def job(dtype=torch.float32, excluded=2, weights=torch.float32):
    generator = torch.Generator().manual_seed(0)
    grads, weights_, groups = [], [], []
    for shape, n, last in CASES:
        weight = torch.randn(shape, generator=generator)
        grad = torch.randn(shape, generator=generator) * 10 ** torch.randint(-4, 2, shape, generator=generator)
        if n:  # of very different units
            grad = grad * torch.logspace(-5, 1, shape[1]).view(1, -1, *[1] * (len(shape) - 2))
        elif len(shape) > 1:
            grad = grad * torch.logspace(-5, 1, shape[0]).view(-1, *[1] * (len(shape) - 1))
        if last in ('both', 'grad'):
            grad = grad.contiguous(memory_format=torch.channels_last)
        if last in ('both', 'weight'):
            weight = weight.contiguous(memory_format=torch.channels_last)
        grads.append(grad.to(DEVICE, dtype))
        weights_.append(weight.to(DEVICE, weights))
        groups.append(n)
    return Grads(grads, weights_[: len(weights_) - excluded], groups)


def copied(job):
    return Grads([g.clone() for g in job.grads], list(job.weights), job.groups)


def by_tensor(job, clipping, eps):
    """In float64; the gradients as they must be, and the factors."""
    n = len(job.weights)
    grads = [g.double() for g in job.grads]
    norms = unit_norms(grads, job.groups, torch.float64)
    limits = unit_norms([w.double() for w in job.weights], job.groups[:n], torch.float64)
    limits = [limits_of(one, clipping, eps) for one in limits] + [torch.full_like(one, math.inf) for one in norms[n:]]
    factors = [unit_factors(*pair) for pair in zip(norms, limits)]
    scale_(grads, [f.where(f.isfinite(), 1.0) for f in factors], job.groups)
    return grads, torch.cat(factors)


def check(form, found, dtype=torch.float32, clipping=0.01, eps=1e-3):
    expected, factors = by_tensor(copied(found), clipping, eps)
    got, sizes = form(found, clipping, eps)
    assert sum(sizes) == len(got)
    # a norm a rounding error above its limit
    torch.testing.assert_close(got.double(), factors, rtol=3e-6, atol=0)
    tolerance = {torch.float32: 3e-6, torch.bfloat16: 2**-7, torch.float16: 2**-10}[dtype]
    for grad, right in zip(found.grads, expected):  # the interpreter cuts bfloat16 off
        assert grad.dtype is dtype
        torch.testing.assert_close(
            grad.double(), right, rtol=tolerance, atol=6e-8 * (dtype is torch.float16), equal_nan=True
        )
    return got


@pytest.mark.parametrize('form', FORMS)
def test_against_the_definition(form):
    factors = check(form, job())
    assert 3 < int((factors < 1).sum()) < len(factors) - 3


@pytest.mark.skipif(not hasattr(torch.autograd.graph, 'increment_version'), reason='needs torch >= 2.1')
@pytest.mark.parametrize('form', FORMS)
def test_autograd_is_told_of_every_gradient_that_was_clipped(form):
    found = job(excluded=2)
    before = [grad._version for grad in found.grads]
    old = copied(found).grads
    form(found, 0.01, 1e-3)
    changed = [not torch.equal(one.nan_to_num(), other.nan_to_num()) for one, other in zip(found.grads, old)]
    told = [grad._version > version for grad, version in zip(found.grads, before)]
    assert any(changed) and all(was_told >= was_changed for was_told, was_changed in zip(told, changed))
    assert not any(told[-2:])  # those that are only looked at


@pytest.mark.parametrize('form', ALL_TYPES)
@pytest.mark.parametrize('dtype, clipping, eps', [(torch.bfloat16, 0.01, 1e-3), (torch.float16, 0.16, 2.0)])
def test_half_gradients(form, dtype, clipping, eps):
    factors = check(form, job(dtype), dtype, clipping, eps)
    assert 3 < int((factors < 1).sum()) < len(factors) - 3


@pytest.mark.parametrize('form', ALL_TYPES)
def test_half_weights(form):
    check(form, job(torch.bfloat16, weights=torch.bfloat16), torch.bfloat16)


@pytest.mark.parametrize('form', FORMS)
def test_all_are_clipped_or_none_or_only_looked_at(form):
    found = job()
    for grad in found.grads:
        grad.mul_(1e9)
    assert float(check(form, found).amin()) < 1e-8
    found = job()
    before = [g.clone() for g in found.grads]
    check(form, found, clipping=1e12)
    only = job(excluded=len(CASES))
    check(form, only)
    for grad, old, other in zip(found.grads, before, only.grads):
        assert torch.equal(grad, old) and torch.equal(other, old)


@pytest.mark.parametrize('form', FORMS)
@pytest.mark.parametrize('bad', [math.nan, math.inf, -math.inf])
def test_units_that_are_not_finite_are_told_and_left(form, bad):
    for where in (1, 5, len(CASES) - 1) if bad > 0 else (4,):
        found = job()
        found.grads[where].view(-1)[-1] = bad
        first = found.grads[where].clone()
        factors, sizes = form(found, 0.01, 1e-3)
        told = int(factors.argmax())
        assert math.isinf(factors[told]) and sum(sizes[:where]) <= told < sum(sizes[: where + 1])
        assert int(factors.isinf().sum()) == 1
        last = found.grads[where].view(-1)[-1]
        assert torch.equal(last.isnan(), torch.tensor(math.isnan(bad))) and (math.isnan(bad) or last == bad)
        assert first.shape == found.grads[where].shape


@pytest.mark.parametrize('form', FORMS)
def test_a_norm_that_overflows_float32_is_clipped_as_it_should_be(form):
    found = job()
    found.grads[4][1].mul_(1e30)
    factors = check(form, found)
    assert bool(factors.isfinite().all()) and 0 < float(factors.amin()) < 1e-20


@pytest.mark.parametrize('form', FORMS)
def test_gradients_that_moved_are_found(form):
    found = job()
    check(form, found)
    check(form, Grads([g.clone() * 100 for g in found.grads], found.weights, found.groups))


def test_what_the_kernel_refuses():
    w = torch.ones(4, 6, device=DEVICE)
    other = torch.ones(2, 3, device=DEVICE).t()
    for job in (
        Grads([w[:, ::2]], [w[:, ::2].clone()], [0]),  # gaps
        Grads([other], [other.contiguous()], [0]),  # rows that are no pieces of memory
        Grads([w.double()], [w], [0]),
        Grads([w, w.half()], [w, w], [0, 0]),
    ):
        before = [grad.clone() for grad in job.grads]
        assert clip_by_kernel_(job, 0.01, 1e-3) is clip_by_cpu_kernel_(job, 0.01, 1e-3) is None
        assert all(map(torch.equal, before, job.grads))


def test_the_flat_form_takes_few_launches_and_never_waits():
    net = nn.ModuleList([nn.Conv2d(8, 8, 3) for _ in range(100)])
    weights = [p.detach() for p in net.parameters()]
    found = Grads([torch.ones_like(w) for w in weights], weights, [0] * len(weights))
    clip_flat_(found, 0.01, 1e-3)
    counts = count_launches(lambda: clip_flat_(found, 0.01, 1e-3))
    assert counts.launches <= 45 and counts.synchronisations == 0, counts.operations + counts.waits


@pytest.mark.skipif(INTERPRETED or DEVICE == 'cuda', reason='the kernel is tested here itself')
def test_the_kernel_in_tritons_interpreter():
    pytest.importorskip('triton', minversion='3.0')  # whose interpreter runs on a CPU
    command = [sys.executable, '-m', 'pytest', '-q', '-x', '-W', 'ignore', '-p', 'no:cacheprovider', __file__]
    done = subprocess.run(command, env={**os.environ, 'TRITON_INTERPRET': '1'}, capture_output=True, text=True)
    assert done.returncode == 0 and ' passed' in done.stdout, done.stdout[-3000:]
