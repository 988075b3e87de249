"""Units of parameters: their norms, their limits, their factors."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

_MIN_GRAD_NORM = 1e-6  # under the division


class Grads(NamedTuple):
    """Gradients to be clipped against weights, and after them others that are only looked at."""

    grads: list[Tensor]
    weights: list[Tensor]  # of as many of ``grads``, from the first one on, as are to be clipped
    groups: list[int]  # of each gradient: 0, or the groups of a transposed conv


def tell_autograd(grad: Tensor) -> None:
    """That a kernel of ours changed a gradient, so that it is not computed with the new values unawares."""
    if hasattr(torch.autograd.graph, 'increment_version'):  # from torch 2.1 on
        torch.autograd.graph.increment_version(grad)


def unit_norms(tensors: Sequence[Tensor], groups: Sequence[int], dtype: torch.dtype) -> list[Tensor]:
    """The L2 norm of every unit of each tensor, (units,) each; ``groups``: 0, or a transposed conv's groups."""
    return [_norms(tensor, n, dtype) for tensor, n in zip(tensors, groups)]


def _norms(tensor: Tensor, groups: int, dtype: torch.dtype) -> Tensor:
    wide = dtype if tensor.dtype in (dtype, torch.float16, torch.bfloat16) else torch.promote_types(tensor.dtype, dtype)
    if tensor.dim() < 2:
        return torch.linalg.vector_norm(tensor, dtype=wide).view(1)
    if groups:
        return torch.linalg.vector_norm(_grouped(tensor, groups), dim=(1, 3), dtype=wide).flatten()
    return torch.linalg.vector_norm(units_first(tensor, 0)[0].flatten(1), dim=1, dtype=wide)


def limits_of(weight_norms: Tensor, clipping: float, eps: float) -> Tensor:
    """The largest norm that a gradient of each unit may have; in place of the weights' norms."""
    return weight_norms.clamp_(min=eps).mul_(clipping)


def unit_factors(norms: Tensor, limits: Tensor) -> Tensor:
    """What each unit's gradient is multiplied by: 1 where it is not clipped, infinity where its norm is not finite."""
    factors = torch.where(norms > limits, limits / norms.clamp(min=_MIN_GRAD_NORM), 1.0)
    return factors.masked_fill_(~norms.isfinite(), torch.inf)


def scale_(tensors: Sequence[Tensor], factors: Sequence[Tensor], groups: Sequence[int]) -> None:
    """Multiply each tensor's units by their factors, (units,) each."""
    if tensors:
        torch._foreach_mul_(*zip(*map(aligned, tensors, factors, groups)))


def aligned(tensor: Tensor, factors: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    """(view of the tensor, its unit factors in a shape that broadcasts against the view)."""
    if tensor.dtype not in (torch.float16, torch.bfloat16):  # in which a small factor would be rounded, or be zero
        factors = factors.to(tensor.dtype)
    if tensor.dim() < 2:
        return tensor, factors.view([1] * tensor.dim())
    if groups:
        return _grouped(tensor, groups), factors.view(groups, 1, -1, 1)
    return tensor, factors.view(-1, *[1] * (tensor.dim() - 1))


def _grouped(tensor: Tensor, groups: int) -> Tensor:
    """(I, O / groups, ...) as (groups, I / groups, O / groups, the rest)."""
    return tensor.unflatten(0, (groups, -1)).flatten(3)


def units_first(tensor: Tensor, groups: int) -> tuple[Tensor, int]:
    """(a view of a tensor whose first axes are its units and whose others hold what belongs to one, their number)."""
    if tensor.dim() < 2:
        return tensor.view(1, -1), 1
    if groups:
        return _grouped(tensor, groups).transpose(1, 2), groups * tensor.shape[1]
    # a channels-last weight's rows are contiguous too, only in another order of their axes
    if tensor.dim() == 4 and not tensor.is_contiguous():
        tensor = tensor.permute(0, 2, 3, 1)
    return tensor, len(tensor)
