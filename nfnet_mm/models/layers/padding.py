"""TensorFlow's 'SAME' padding, which the public weights were trained with."""

from torch import Tensor
from torch.nn import functional as F


def same_padding(size: int, kernel: int, stride: int, dilation: int = 1) -> tuple[int, int]:
    """(before, after) padding of one axis so that the output has ceil(size / stride) places.

    The odd one goes after, i.e. to the bottom or right.

    Example:
        >>> same_padding(224, 3, 2), same_padding(225, 3, 2), same_padding(224, 7, 2)
        ((0, 1), (1, 1), (2, 3))
    """
    reach = (kernel - 1) * dilation + 1
    total = -size % stride + reach - stride
    if reach < stride:
        total = max(total, 0)
    return total // 2, total - total // 2


def pad_same(
    x: Tensor, kernel: int, stride: int, dilation: int = 1, value: float = 0
) -> tuple[Tensor, tuple[int, int]]:
    """What to give to an operation for SAME padding: (N, C, H, W), padded if need be, and the (height, width) padding.

    The operation pads by itself where both sides are alike, which spares a copy.
    """
    top, bottom = same_padding(x.shape[-2], kernel, stride, dilation)
    left, right = same_padding(x.shape[-1], kernel, stride, dilation)
    # An exporter's sizes are symbols (tensors, in a trace): the graph computes its padding of them.
    if isinstance(x.shape[-1], int) and (top, left) == (bottom, right):
        return x, (top, left)
    return F.pad(x, (left, right, top, bottom), value=value), (0, 0)


def cut_same(grad: Tensor, x: Tensor, kernel: int, stride: int, dilation: int = 1) -> Tensor:
    """The gradient of ``x``, (N, C, H, W), from that of what :func:`pad_same` made of it."""
    if grad.shape == x.shape:
        return grad
    top, left = (same_padding(size, kernel, stride, dilation)[0] for size in x.shape[-2:])
    return grad[..., top : top + x.shape[-2], left : left + x.shape[-1]]


def max_pool2d_same(x: Tensor, kernel: int = 3, stride: int = 2) -> Tensor:
    """Max pooling with SAME padding: (N, C, H, W) -> (N, C, ceil(H / stride), ceil(W / stride))."""
    x, padding = pad_same(x, kernel, stride, value=float('-inf'))
    return F.max_pool2d(x, kernel, stride, padding)


def avg_pool2d_same(x: Tensor, stride: int = 2) -> Tensor:
    """Mean of windows as large as the stride, with SAME padding whose zeros are not counted.

    Shape: (N, C, H, W) -> (N, C, ceil(H / stride), ceil(W / stride)).

    Example:
        >>> import torch
        >>> avg_pool2d_same(torch.arange(7.).view(1, 1, 1, 7), 4).flatten().tolist()  # one place is padded, at the end
        [1.5, 5.0]
    """
    # PyTorch pads both sides alike; the odd place after the rest is the one that ceil_mode lets a window reach over.
    # Up to stride 2 that is all there is, so that such a network's graph does not depend on the image size.
    if stride == 2 and not isinstance(x.shape[-1], int):  # to an exporter ceil_mode is a decision
        x = F.pad(x, (0, x.shape[-1] % 2, 0, x.shape[-2] % 2), mode='replicate')
        return F.avg_pool2d(x, stride, stride)
    before = 0 if stride <= 2 else [same_padding(size, stride, stride)[0] for size in x.shape[-2:]]
    return F.avg_pool2d(x, stride, stride, before, ceil_mode=True, count_include_pad=False)
