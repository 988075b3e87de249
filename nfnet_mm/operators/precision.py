"""The precision that operators compute in."""

import numpy as np
from torch import Tensor, bfloat16, float16


def widen(tensor: Tensor) -> Tensor:
    """A tensor of half precision as float32, any other as it is."""
    return tensor.float() if tensor.dtype in (bfloat16, float16) else tensor


def single(value: float) -> float:
    """An option as mmcv takes it: rounded to float32, whatever the tensors are.

    >>> single(0.3)
    0.30000001192092896
    """
    return float(np.float32(value))
