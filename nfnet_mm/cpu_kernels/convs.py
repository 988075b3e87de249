"""Convs whose activations are channels-last, and their gradients."""

from collections.abc import Sequence
from ctypes import c_int64
from typing import Any

import torch
from torch import Tensor

from .launch import function, run_kernel, scratch, takes

_LARGE = 1 << 18  # values of a pointwise weight; with fewer torch is as fast
_LARGEST = 1 << 20  # of values per tap in a weight, which takes 16 times as many while it is worked with


def takes_conv3x3(
    x: Tensor, weight: Tensor, stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int], groups: int
) -> bool:
    """Whether a conv can be computed by Winograd's algorithm, and by it faster than by torch.

    It is a 3 x 3 conv of stride 1 with at least 32 channels in a group, in multiples of 32, whose activations are
    channels-last; and there are tiles of 2 x 2 outputs enough that to prepare the weights pays, most of them whole, and
    parts enough for all threads.
    """
    if weight.shape[2:] != (3, 3) or x.dim() != 4 or tuple(stride) != (1, 1) or tuple(dilation) != (1, 1):
        return False
    (down, across), inputs, outputs = padding, weight.shape[1], len(weight) // groups
    if down != across or not 0 <= down <= 2 or inputs % 32 or outputs % 32 or not inputs * outputs:
        return False
    if x.shape[1] != inputs * groups or len(weight) != outputs * groups or inputs * len(weight) > _LARGEST:
        return False
    n, _, height, width = _out_size(x, weight, down)
    tiles = n * -(-height // 2) * -(-width // 2) if min(height, width) > 0 else 0
    parts = groups * min(4, -(-tiles // 48)) * (min(inputs, outputs) // 32)
    if tiles < 32 or n * height * width < 0.6 * 4 * tiles or parts < torch.get_num_threads():
        return False
    if not x.is_contiguous(memory_format=torch.channels_last):
        return False
    return takes(x, weight) and bool(function('products_pay')(0))


def conv3x3(x: Tensor, weight: Tensor, bias: Tensor | None, padding: int, groups: int) -> Tensor:
    """A conv as :func:`takes_conv3x3` takes it: of (N, I, H, W) by (O, I / groups, 3, 3), channels-last."""
    out = torch.empty(_out_size(x, weight, padding), memory_format=torch.channels_last, device='cpu', dtype=x.dtype)
    weight = weight.contiguous(memory_format=torch.channels_last)
    shape = _shape(x, weight.shape[1], out.shape[1] // groups, groups, padding)
    run_kernel('conv3x3', x, weight, bias, out, shape, 0, _scratch(shape))
    return out


def conv3x3_input(grad: Tensor, x: Tensor, weight: Tensor, padding: int, groups: int) -> Tensor:
    """The gradient of the input of :func:`conv3x3`, from that of its output, which is channels-last."""
    _check(grad, x, weight, padding)
    out = torch.empty_like(x)
    weight = weight.contiguous(memory_format=torch.channels_last)
    shape = _shape(grad, grad.shape[1] // groups, weight.shape[1], groups, 2 - padding)
    run_kernel('conv3x3', grad, weight, None, out, shape, 1, _scratch(shape))
    return out


def conv3x3_weight(grad: Tensor, x: Tensor, weight: Tensor, padding: int, groups: int) -> Tensor:
    """The gradient of the weight of :func:`conv3x3`, channels-last as input and gradient are."""
    _check(grad, x, weight, padding)
    out = torch.empty_like(weight, memory_format=torch.channels_last)
    shape = _shape(x, weight.shape[1], grad.shape[1] // groups, groups, padding)
    run_kernel('conv3x3_weight', x, grad, out, shape, _scratch(shape))
    return out


def _shape(x: Tensor, inputs: int, outputs: int, groups: int, padding: int) -> Any:
    """``Shape`` in winograd.c, of a conv of ``x`` with so many channels in a group."""
    n, _, height, width = x.shape
    return (c_int64 * 7)(n, height, width, inputs, outputs, groups, padding)


def _scratch(shape: Any) -> Tensor:
    return scratch('conv', function('conv3x3_scratch')(shape, torch.get_num_threads()), torch.float32)


def _out_size(x: Tensor, weight: Tensor, padding: int) -> tuple[int, int, int, int]:
    n, _, height, width = x.shape
    return n, len(weight), height + 2 * padding - 2, width + 2 * padding - 2


def _check(grad: Tensor, x: Tensor, weight: Tensor, padding: int) -> None:
    if grad.shape != _out_size(x, weight, padding):  # memory that is not there would be read
        raise ValueError(f'a gradient of shape {tuple(grad.shape)} is not one of {_out_size(x, weight, padding)}')


def takes_pointwise_weight(
    grad: Tensor, x: Tensor, weight: Tensor, stride: Sequence[int], padding: Sequence[int], groups: int
) -> bool:
    """Whether :func:`pointwise_weight` takes them, and is faster than torch.

    They are channels-last, with channels in multiples of 32, and neither these nor the positions are few.
    """
    if weight.shape[2:] != (1, 1) or x.dim() != 4 or tuple(stride) != (1, 1) or any(padding) or groups != 1:
        return False
    outputs, inputs = weight.shape[:2]
    n, *size = len(x), *x.shape[2:]
    if x.shape != (n, inputs, *size) or grad.shape != (n, outputs, *size) or not x.numel():
        return False
    if outputs % 32 or inputs % 32 or outputs * inputs < _LARGE or n * size[0] * size[1] < 32:
        return False
    if outputs // 32 * (inputs // 32) < torch.get_num_threads():
        return False
    if not all(one.is_contiguous(memory_format=torch.channels_last) for one in (x, grad)):
        return False
    return takes(grad, x) and bool(function('products_pay')(0))


def pointwise_weight(grad: Tensor, x: Tensor) -> Tensor:
    """The gradient (O, I, 1, 1) of a pointwise conv's weight, from the (N, O, H, W) of its output and (N, I, H, W)."""
    inputs, outputs = x.shape[1], grad.shape[1]
    out = torch.empty(outputs, inputs, 1, 1, dtype=x.dtype, device='cpu')
    memory = scratch('conv', function('pointwise_scratch')(inputs, outputs, torch.get_num_threads()), x.dtype)
    run_kernel('pointwise_weight', x, grad, out, x.numel() // inputs, inputs, outputs, memory)
    return out
