"""The precision that operators compute in."""

from torch import Tensor, bfloat16, float16


def widen(tensor: Tensor) -> Tensor:
    """A tensor of half precision as float32, any other as it is."""
    return tensor.float() if tensor.dtype in (bfloat16, float16) else tensor
