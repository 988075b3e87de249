"""A conv and its gradients, by torch's own functions but where they are slow on a CPU."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from nfnet_mm import cpu_kernels

# Of a large weight's gradient over few positions: values of the weight, and positions of the batch for a pointwise conv
# and for others.
_LARGE, _FEW, _FEWER = 1 << 18, 1024, 256


def conv_forward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int] | str,
    dilation: Sequence[int],
    groups: int,
) -> Tensor:
    """What ``F.conv2d`` computes, without a graph for its gradients, for which there is :func:`conv_backward`."""
    takes_bias = bias is None or (bias.shape == weight.shape[:1] and cpu_kernels.takes(bias))
    if isinstance(padding, str) or not takes_bias:
        return F.conv2d(x, weight, bias, stride, padding, dilation, groups)
    if cpu_kernels.takes_conv3x3(x, weight, stride, padding, dilation, groups):
        return cpu_kernels.conv3x3(x, weight, bias, padding[0], groups)
    return F.conv2d(x, weight, bias, stride, padding, dilation, groups)


def conv_backward(
    grad: Tensor, x: Tensor, weight: Tensor, settings: Sequence[Any], needed: tuple[bool, bool, bool]
) -> tuple[Any, Any, Any]:
    """Gradients of input, weight and bias, each None if it is not needed.

    Args:
        grad: (N, O, H', W'), of the conv's output.
        x: (N, I, H, W), its input.
        weight: (O, I / groups, kh, kw).
        settings: stride, padding and dilation of each axis, and groups.
        needed: which gradients.
    """
    stride, padding, dilation, groups = settings
    positions = grad.numel() // grad.shape[1]
    on_cpu = grad.device.type == 'cpu'
    if on_cpu and x.dtype == torch.bfloat16 and max(stride) > 1 and min(x.shape[2:]) <= max(padding):
        # oneDNN leaves parts of the weight's gradient unwritten that see padding alone (2.11)
        (top, left), (height, width) = padding, x.shape[2:]
        wide = F.pad(x, (left, left, top, top))
        of_x, *others = conv_backward(grad, wide, weight, (stride, (0, 0), dilation, groups), needed)
        return of_x if of_x is None else of_x[..., top : top + height, left : left + width], *others

    if cpu_kernels.takes_conv3x3(x, weight, *settings) and cpu_kernels.takes(grad):
        grad, pad = grad.contiguous(memory_format=torch.channels_last), padding[0]
        return (
            cpu_kernels.conv3x3_input(grad, x, weight, pad, groups) if needed[0] else None,
            cpu_kernels.conv3x3_weight(grad, x, weight, pad, groups) if needed[1] else None,
            grad.sum((0, 2, 3)) if needed[2] else None,
        )
    pointwise = weight.shape[2:] == (1, 1) and tuple(stride) == (1, 1) and not any(padding)
    slow = weight.numel() >= _LARGE and 0 < positions <= (_FEW if pointwise else _FEWER)
    by_kernel = needed[1] and cpu_kernels.takes_pointwise_weight(grad, x, weight, stride, padding, groups)
    by_hand = by_kernel or (on_cpu and slow and groups == 1 and x.dtype == torch.float32 and needed[1])
    bias = [len(weight)] if needed[2] else None
    asked = [needed[0], needed[1] and not by_hand, needed[2] and not by_hand]
    found: list[Any] = [None, None, None]
    if any(asked):
        backward = torch.ops.aten.convolution_backward
        made = backward(grad, x, weight, bias, stride, padding, dilation, False, [0, 0], groups, asked)
        found = [one if need else None for one, need in zip(made, asked)]  # oneDNN makes the bias's with the weight's
    if by_hand:
        found[1] = cpu_kernels.pointwise_weight(grad, x) if by_kernel else _weight_gradient(grad, x, weight, settings)
        found[2] = grad.sum((0, 2, 3)) if needed[2] else None
    return found[0], found[1], found[2]


def _weight_gradient(grad: Tensor, x: Tensor, weight: Tensor, settings: Sequence[Any]) -> Tensor:
    """Of a conv without groups, as a product of matrices: outputs by positions, positions by what the kernel sees.

    oneDNN, which computes convs on a CPU, takes up to four times as long where there are few positions (torch 2.11).
    """
    stride, padding, dilation, _ = settings
    outputs, inputs, *size = weight.shape
    if any(padding):
        x = F.pad(x, (padding[1], padding[1], padding[0], padding[0]))
    n, c, h, w = x.stride()
    steps = n, h * stride[0], w * stride[1], h * dilation[0], w * dilation[1], c
    seen = x.as_strided((len(x), *grad.shape[2:], *size, inputs), steps).reshape(-1, size[0] * size[1] * inputs)
    rows = grad.permute(0, 2, 3, 1).reshape(-1, outputs).t() @ seen
    return rows.view(outputs, *size, inputs).permute(0, 3, 1, 2)
