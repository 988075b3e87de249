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
    bias = [len(weight)] if needed[2] else None
    rest = (False, [0, 0], groups)
    pointwise = weight.shape[2:] == (1, 1) and groups == 1 and tuple(stride) == (1, 1) and not any(padding)
    slow = pointwise and weight.numel() >= _LARGE and 0 < positions <= _FEW and x.dtype == torch.float32
    if not (slow and needed[1] and grad.device.type == 'cpu'):
        backward = torch.ops.aten.convolution_backward
        return backward(grad, x, weight, bias, stride, padding, dilation, *rest, list(needed))
    of_x = None
    if needed[0]:
        of_x = torch.ops.aten.convolution_backward(
            grad, x, weight, None, stride, padding, dilation, *rest, [True, False, False]
        )[0]
    of_bias = grad.sum((0, 2, 3)) if needed[2] else None
    return of_x, _pointwise_weight_gradient(grad, x, positions), of_bias


def _pointwise_weight_gradient(grad: Tensor, x: Tensor, positions: int) -> Tensor:
    """(O, I, 1, 1), grad^T x over all positions, as a conv over the outputs whose channels are the positions.

    oneDNN, which computes convs on a CPU, takes up to three times as long for the gradient itself (2.11), and MKL,
    which multiplies matrices there, twice as long on an AMD processor.
    """
    outputs, inputs = grad.shape[1], x.shape[1]
    by_output = grad.permute(1, 0, 2, 3).reshape(1, outputs, 1, positions).permute(0, 3, 1, 2)
    out = F.conv2d(by_output, x.permute(1, 0, 2, 3).reshape(inputs, positions, 1, 1))
    return out.permute(0, 2, 3, 1).reshape(outputs, inputs, 1, 1)
