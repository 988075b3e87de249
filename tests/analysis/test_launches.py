"""The counter of launches and synchronisations, against what a stand-in CUDA runtime counted of the same calls."""

import pytest
import torch
from torch import nn

from nfnet_mm.analysis.launches import count_launches
from nfnet_mm.models import NFNet
from tests.stacks import needs_torch


@pytest.fixture(scope='module')
def f0():
    torch.manual_seed(0)
    model = nn.ModuleList([NFNet('F0', out_indices=(4,)), nn.Linear(3072, 1000)])
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    return model


@pytest.mark.parametrize(
    ('options', 'launches'),
    [
        pytest.param(dict(fused=True), 6, marks=needs_torch(2, 4, 'fused SGD')),  # counted: 6
        (dict(foreach=True), 24),  # counted: 25
        (dict(foreach=False), 233 * 5),  # weight decay, two of momentum, Nesterov's, the step
    ],
)
def test_optimizers(f0, options, launches):
    parameters = list(f0.parameters())
    optimizer = torch.optim.SGD(parameters, lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-5, **options)
    optimizer.step()
    counts = count_launches(optimizer.step)
    assert len(parameters) == 233
    assert (counts.launches, counts.synchronisations) == (launches, 0), counts.operations


def test_multi_tensor_operations_whose_shapes_broadcast_go_tensor_by_tensor(f0):
    grads = [p.grad for p in f0.parameters()]
    fast = count_launches(lambda: torch._foreach_mul_(grads, grads))
    factors = [g.new_zeros([1] * g.dim()) for g in grads]
    slow = count_launches(lambda: torch._foreach_mul_(grads, factors))
    assert fast.launches == 5  # counted: 5
    assert slow.launches == 233


@pytest.mark.parametrize(
    ('wait', 'count'),
    [
        (lambda x: x.sum().item(), 1),
        (lambda x: bool(x.any()), 1),
        (lambda x: x[x > 0], 1),
        (lambda x: x.nonzero(), 1),
        (lambda x: x.new_tensor(0.2), 1),
        (lambda x: torch.equal(x, x), 1),
        (lambda x: x.masked_fill(x > 0, 1.0), 0),
        (lambda x: torch.where(x > 0, x, 0.0).sum(), 0),
        (lambda x: x.view(2, 2).t().detach(), 0),
    ],
)
def test_waits(wait, count):
    assert count_launches(lambda: wait(torch.ones(4))).synchronisations == count


def test_views_and_allocations_launch_nothing():
    x = torch.ones(4, 4)
    assert count_launches(lambda: (x.t()[1:].detach(), torch.empty_like(x), x.expand(2, 4, 4))).launches == 0
