"""TensorFlow's 'SAME' padding, which the public weights were trained with."""
from typing import Tuple

from torch import Tensor
from torch.nn import functional as F


def same_padding(size: int, kernel: int, stride: int, dilation: int = 1) -> Tuple[int, int]:
    """(before, after) padding of one axis so that the output has ceil(size / stride) places.

    The odd one goes after, i.e. to the bottom or right.

    Example:
        >>> same_padding(224, 3, 2), same_padding(225, 3, 2), same_padding(224, 7, 2)
        ((0, 1), (1, 1), (2, 3))
    """
    reach = (kernel - 1) * dilation + 1
    total = max((-(-size // stride) - 1) * stride + reach - size, 0)
    return total // 2, total - total // 2


def max_pool2d_same(x: Tensor, kernel: int = 3, stride: int = 2) -> Tensor:
    """Max pooling with SAME padding: (N, C, H, W) -> (N, C, ceil(H / stride), ceil(W / stride))."""
    top, bottom = same_padding(x.shape[-2], kernel, stride)
    left, right = same_padding(x.shape[-1], kernel, stride)
    if (top, left) == (bottom, right):
        return F.max_pool2d(x, kernel, stride, (top, left))
    return F.max_pool2d(F.pad(x, (left, right, top, bottom), value=float('-inf')), kernel, stride)
