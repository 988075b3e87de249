"""Bytes kept for the backward pass, against counts by hand on toys of a few numbers."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from nfnet_mm.benchmark.memory import held_bytes, saved_bytes

FLOAT = 4  # bytes


def test_two_layers():
    """x (2, 3) is saved for the first weight's gradient; relu's output (2, 4) by relu and by the second layer, once.

    The second weight, which the gradient of its input needs, is a parameter. What relu reads is free, the last layer's
    output too; beside relu's output there is the loss, one number.
    """
    first, second = nn.Linear(3, 4), nn.Linear(4, 5)
    x = torch.randn(2, 3)

    def forward():
        return second(F.relu(first(x))).sum()

    parameters = [*first.parameters(), *second.parameters()]
    assert saved_bytes(forward, parameters) == (2 * 3 + 2 * 4) * FLOAT
    assert held_bytes(forward) == (2 * 4 + 1) * FLOAT


def test_a_view_keeps_the_whole_storage_and_once():
    weight = nn.Parameter(torch.randn(10))
    numbers = torch.randn(100)

    def forward():
        return (weight * numbers[:10]).sum() + (weight * numbers[50:60]).sum()

    assert saved_bytes(forward, [weight]) == 100 * FLOAT


def test_of_what_is_computed_again_the_input_is_kept():
    """The sum of a parameter and x (2, 3); beside it there is the loss, one number."""
    weight, x = nn.Parameter(torch.randn(3)), torch.randn(2, 3)

    def forward():
        return checkpoint(lambda h: (h.exp() * h).sum(), x + weight, use_reentrant=False)

    assert saved_bytes(forward, [weight]) == 2 * 3 * FLOAT
    assert held_bytes(forward) == (2 * 3 + 1) * FLOAT


class KeptAside(torch.autograd.Function):
    """The square, whose input is kept as an attribute."""

    @staticmethod
    def forward(ctx, x):
        ctx.x = x.clone()
        return x.square()

    @staticmethod
    def backward(ctx, grad):
        return 2 * ctx.x * grad


def test_what_no_hook_sees_is_held():
    weight = nn.Parameter(torch.randn(5))
    assert saved_bytes(lambda: KeptAside.apply(weight).sum(), [weight]) == 0
    assert held_bytes(lambda: KeptAside.apply(weight).sum()) == (5 + 1) * FLOAT


@pytest.mark.parametrize('layer, ours', [(nn.GELU(), 1), (nn.ReLU(), 1), (nn.Sequential(nn.GELU(), nn.GELU()), 2)])
def test_an_activation_keeps_one_tensor(layer, ours):
    weight, x = nn.Parameter(torch.zeros(1)), torch.randn(2, 3)
    assert saved_bytes(lambda: layer(x + weight).sum(), [weight]) == ours * 2 * 3 * FLOAT
