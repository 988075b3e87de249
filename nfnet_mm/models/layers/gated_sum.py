"""The end of a residual block: shortcut plus gated branch, with a backward pass in closed form under Squeeze-Excite."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .attention import SqueezeExcite
from .precision import autocast
from .standardize import differentiable, differentiated_otherwise, needs_plain_operations


def gated_sum(
    shortcut: Tensor, x: Tensor, attention: nn.Module, factor: float, gain: Tensor | None, mask: Tensor | None
) -> Tensor:
    """``shortcut + x * gate``, where gate = ``factor * gain * attention(x) * mask``, a number per sample and channel.

    Under Squeeze-Excite both gradients of ``x``, that by the product and that by the gate, are one pass over it, and
    the gate is computed in its weights' type, whatever autocast asks for: it is a few numbers.

    Args:
        shortcut, x: (N, C, H, W).
        attention: the gate's module.
        factor: a number.
        gain: a 0-d tensor, or None for 1.
        mask: (N, 1, 1, 1), or None for all.
    """
    linears = None if needs_plain_operations() else _linears(attention)
    if linears is None:
        return _sum(shortcut, x, attention(x), factor, gain, mask)
    return _GatedSum.apply(shortcut, x, factor, gain, mask, *linears)


def _sum(
    shortcut: Tensor, x: Tensor, opened: Tensor, factor: float, gain: Tensor | None, mask: Tensor | None
) -> Tensor:
    """:func:`gated_sum` with what attention opened, (N, C, 1, 1)."""
    gate = factor * opened
    for one in (gain, mask):
        gate = gate if one is None else gate * one
    return torch.addcmul(shortcut, x, gate.to(x.dtype))


def _linears(attention: nn.Module) -> tuple[Tensor, ...] | None:
    """Weights and biases of Squeeze-Excite; None for whatever else this is, and where hooks are to be called."""
    if type(attention) is not SqueezeExcite:
        return None
    modules = attention, attention.fc1, attention.fc2
    if any(type(fc) is not nn.Linear for fc in modules[1:]) or any(_has_hooks(module) for module in modules):
        return None
    tensors = [tensor for fc in modules[1:] for tensor in (fc.weight, fc.bias)]
    return None if any(tensor is None for tensor in tensors) else tuple(tensors)  # type: ignore[arg-type]


def _has_hooks(module: nn.Module) -> bool:
    kinds = '_forward_hooks', '_forward_pre_hooks', '_backward_hooks', '_backward_pre_hooks'
    return 'forward' in vars(module) or any(getattr(module, kind) for kind in kinds)


def _plain(
    shortcut: Tensor,
    x: Tensor,
    factor: float,
    gain: Tensor | None,
    mask: Tensor | None,
    w1: Tensor,
    b1: Tensor,
    w2: Tensor,
    b2: Tensor,
) -> Tensor:
    """:func:`gated_sum` in operations that can be differentiated at will."""
    hidden = F.relu(F.linear(x.mean((2, 3), dtype=w1.dtype), w1, b1))
    opened = torch.sigmoid(F.linear(hidden, w2, b2))[:, :, None, None]
    return _sum(shortcut, x, opened, factor, gain, mask)


def _cast(function: Any, one: Tensor, other: Any, dtype: torch.dtype) -> Tensor:
    """``function(one, other)`` in another type, by one kernel."""
    return function(one, other, out=torch.empty_like(one, dtype=dtype))


class _GatedSum(torch.autograd.Function):
    """``_plain``, out of autocast."""

    @staticmethod
    def forward(
        ctx: Any,
        shortcut: Tensor,
        x: Tensor,
        factor: float,
        gain: Tensor | None,
        mask: Tensor | None,
        w1: Tensor,
        b1: Tensor,
        w2: Tensor,
        b2: Tensor,
    ) -> Tensor:
        with autocast(x.device.type, None):
            mean = x.mean((2, 3), dtype=w1.dtype)
            hidden = torch.addmm(b1, mean, w1.t()).relu_()
            opened = torch.addmm(b2, hidden, w2.t()).sigmoid_()
            gate = opened if gain is None else opened * gain
            gate = gate.to(x.dtype) if mask is None else _cast(torch.mul, gate, mask.flatten(1), x.dtype)
            out = torch.addcmul(shortcut, x, gate[:, :, None, None], value=factor)
        ctx.save_for_backward(x, gain, mask, w1, b1, w2, b2, mean, hidden, opened, gate)
        ctx.factor, ctx.shortcut = factor, (shortcut.shape, shortcut.dtype)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, gain, mask, w1, b1, w2, b2, mean, hidden, opened, gate = ctx.saved_tensors
        factor, (shape, dtype) = ctx.factor, ctx.shortcut
        needed = ctx.needs_input_grad
        of_shortcut = grad.to(dtype) if needed[0] else None
        if not any(needed[1:]):
            return of_shortcut, *[None] * 8
        with autocast(x.device.type, None):
            if differentiated_otherwise(grad):
                inputs = grad.new_zeros(()).expand(shape), x, factor, gain, mask, w1, b1, w2, b2
                return of_shortcut, *differentiable(_plain, inputs, (False, *needed[1:]), grad)[1:]
            of_x = of_gain = of_w1 = of_b1 = of_w2 = of_b2 = None
            of_gate = (grad * x).sum((2, 3), dtype=w1.dtype).mul_(factor)
            if mask is not None:
                of_gate *= mask.flatten(1)
            if needed[3]:
                of_gain = (of_gate.view(1, -1) @ opened.view(-1, 1)).view(()).to(gain.dtype)
            of_second = torch.ops.aten.sigmoid_backward(of_gate if gain is None else of_gate.mul_(gain), opened)
            of_w2 = of_second.t() @ hidden if needed[7] else None
            of_b2 = of_second.sum(0) if needed[8] else None
            of_first = torch.ops.aten.threshold_backward(of_second @ w2, hidden, 0)
            of_w1 = of_first.t() @ mean if needed[5] else None
            of_b1 = of_first.sum(0) if needed[6] else None
            if needed[1]:
                of_mean = _cast(torch.div, of_first @ w1, x.shape[2] * x.shape[3], grad.dtype)
                of_x = torch.addcmul(of_mean[:, :, None, None], grad, gate[:, :, None, None], value=factor).to(x.dtype)
        return of_shortcut, of_x, None, of_gain, None, of_w1, of_b1, of_w2, of_b2
