"""The gradients of a conv, by torch's own function but where it is slow."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

# Of a large weight's gradient over few positions: values of the weight, and positions of the batch.
_LARGE, _FEW = 1 << 20, 1024


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

    pointwise = weight.shape[2:] == (1, 1) and groups == 1 and tuple(stride) == (1, 1) and not any(padding)
    slow = pointwise and weight.numel() >= _LARGE and 0 < positions <= _FEW and x.dtype == torch.float32
    by_hand = on_cpu and slow and needed[1]
    bias = [len(weight)] if needed[2] else None
    asked = [needed[0], needed[1] and not by_hand, needed[2] and not by_hand]
    found: list[Any] = [None, None, None]
    if any(asked):
        backward = torch.ops.aten.convolution_backward
        made = backward(grad, x, weight, bias, stride, padding, dilation, False, [0, 0], groups, asked)
        found = [one if need else None for one, need in zip(made, asked)]  # oneDNN makes the bias's with the weight's
    if by_hand:
        found[1] = _pointwise_weight_gradient(grad, x)
        found[2] = grad.sum((0, 2, 3)) if needed[2] else None
    return found[0], found[1], found[2]


def _pointwise_weight_gradient(grad: Tensor, x: Tensor) -> Tensor:
    """(O, I, 1, 1): grad^T x over all positions, as a product of matrices.

    oneDNN, which computes convs on a CPU, takes up to three times as long (torch 2.11).
    """
    rows, columns = (t.permute(0, 2, 3, 1).reshape(-1, t.shape[1]) for t in (grad, x))
    return (rows.t() @ columns)[:, :, None, None]
