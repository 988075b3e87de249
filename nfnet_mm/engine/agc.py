"""Adaptive gradient clipping (NFNets, section 4; where paper and released code differ, the code)."""

from collections.abc import Container, Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from nfnet_mm.errors import UserError, check_number

from .sharded import Shards, is_sharded, local

_MIN_GRAD_NORM = 1e-6  # under the division


class ClipStats(NamedTuple):
    """What one call did. The 0-d tensors stay on the gradients' device: reading them is the caller's choice."""

    units: int
    clipped: Tensor  # number of units scaled down
    min_scale: Tensor  # the smallest factor applied, 1 where none was
    finite: Tensor  # whether every norm was; if not, units of non-finite norm were left as they are


def check_agc(clipping: float, eps: float) -> None:
    """Raise :class:`UserError` unless both are positive finite numbers."""
    hint = ' (the papers: clipping 0.01 at batch 4096 to 0.16 at 256, eps 1e-3)'
    check_number('AGC clipping', clipping, '(0, inf)', hint)
    check_number('AGC eps', eps, '(0, inf)', hint)


@torch.no_grad()
def adaptive_clip_grad_(
    params: Iterable[Tensor],
    clipping: float = 0.01,
    eps: float = 1e-3,
    transposed: Mapping[Tensor, int] = {},
    norm_dtype: torch.dtype = torch.float32,
    exclude: Container[Tensor] = (),
) -> ClipStats:
    """Clip, in place, the gradient of every unit relative to the norm of the unit's weights.

    With G_i, W_i the gradient and weights of unit i: where ||G_i|| > c * max(||W_i||, eps), G_i becomes
    c * max(||W_i||, eps) * G_i / max(||G_i||, 1e-6). A unit is one output row of a weight of two or more dimensions
    (conv (O, I, kh, kw), linear (O, I)); a vector or a scalar (bias, gain, SkipInit) is one unit as a whole.

    Parameters that PyTorch's ``fully_shard`` spread over processes (DTensors) are clipped as the whole ones would be,
    if all these processes call this; its result is that of all of them.

    Args:
        params: a tensor or tensors, all on one device. Those without gradient are passed over, and one that is given
            twice (shared by two modules) is clipped once.
        clipping: c.
        eps: keeps units with tiny weights trainable.
        transposed: which of ``params`` are transposed-conv weights (I, O / groups, kh, kw), with their groups.
        norm_dtype: norms are computed in this dtype or a wider one.
        exclude: a set of those of ``params`` that are not clipped; whether their gradients are finite is still told.

    Raises:
        ValueError: ``clipping`` or ``eps`` is not a positive finite number, or a gradient is sparse.

    Example:
        >>> w = torch.nn.Parameter(torch.tensor([[3., 4.], [0., 0.]]))
        >>> w.grad = torch.tensor([[30., 40.], [0., 6e-6]])
        >>> int(adaptive_clip_grad_([w], clipping=0.1, eps=1e-3).clipped), w.grad
        (1, tensor([[3.0000e-01, 4.0000e-01],
                [0.0000e+00, 6.0000e-06]]))
    """
    check_agc(clipping, eps)
    found = _dense_grads([params] if isinstance(params, Tensor) else params)
    shards = Shards(found, transposed)
    left = [grad for p, grad in found.items() if p in exclude]
    finite = torch.stack(torch._foreach_norm(left)).isfinite().all() if left else torch.tensor(True)
    clipped = [p for p in found if p not in exclude]
    if not clipped:
        none = torch.tensor(0), torch.tensor(1.0), finite
        return ClipStats(0, *(shards.totals([], [], finite, torch.tensor(1.0)) if shards else none))
    grads = [found[p] for p in clipped]
    groups = [transposed.get(p, 0) for p in clipped]
    grad_norms = unit_norms(grads, groups, norm_dtype)
    limits = unit_norms([local(p) for p in clipped], groups, norm_dtype)
    units = sum(n.numel() for n in limits)
    if shards:
        shards.complete(grad_norms, clipped)
        shards.complete(limits, clipped)
        units = sum(p.shape[0] if p.dim() > 1 and is_sharded(p) else n.numel() for p, n in zip(clipped, limits))
    sizes = [n.numel() for n in limits]
    grad_norm, limit = torch.cat(grad_norms), torch.cat(limits).clamp_(min=eps).mul_(clipping)
    norm_finite = grad_norm.isfinite()
    over = (grad_norm > limit) & norm_finite
    scale = torch.where(over, limit / grad_norm.clamp(min=_MIN_GRAD_NORM), 1.0)
    scaled = list(zip(grads, scale.split(sizes), groups))
    if scale.device.type == 'cpu':  # looking costs nothing there, and most steps clip few of the tensors
        scaled = [entry for entry, hit in zip(scaled, over.split(sizes)) if hit.any()]
    if scaled:
        torch._foreach_mul_(*zip(*(_aligned(grad, s, n) for grad, s, n in scaled)))
    all_finite = norm_finite.all() & finite if left else norm_finite.all()
    min_scale = scale.min() if scale.numel() else scale.new_ones(())  # of a process without rows
    if shards:
        return ClipStats(units, *shards.totals(clipped, over.split(sizes), all_finite, min_scale))
    return ClipStats(units, over.sum(), min_scale, all_finite)


def _dense_grads(params: Iterable[Tensor]) -> dict[Tensor, Tensor]:
    """The gradient of each parameter that has one and is not empty."""
    grads = {p: local(p.grad) for p in params if p.grad is not None and p.numel()}
    for p, grad in grads.items():
        if grad.layout is not torch.strided:
            raise UserError(
                f'the gradient of a parameter of shape {tuple(p.shape)} is sparse ({grad.layout}), and '
                'AGC takes dense ones: build its nn.Embedding with sparse=False'
            )
    return grads


def unit_norms(tensors: Sequence[Tensor], groups: Sequence[int], dtype: torch.dtype) -> list[Tensor]:
    """The L2 norm of every unit of each tensor, (units,) each; ``groups``: 0, or a transposed conv's groups."""
    norms = []
    for tensor, n in zip(tensors, groups):
        wide = torch.promote_types(tensor.dtype, dtype)
        if tensor.dim() < 2:
            norms.append(torch.linalg.vector_norm(tensor, dtype=wide).view(1))
        elif n:
            norms.append(torch.linalg.vector_norm(_grouped(tensor, n), dim=(1, 3), dtype=wide).flatten())
        else:
            # a channels-last weight's rows are contiguous too, only in another order of their axes
            if tensor.dim() == 4 and not tensor.is_contiguous():
                tensor = tensor.permute(0, 2, 3, 1)
            norms.append(torch.linalg.vector_norm(tensor.flatten(1), dim=1, dtype=wide))
    return norms


def _aligned(tensor: Tensor, scale: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    """(view of the tensor, its unit factors in a shape that broadcasts against the view)."""
    if tensor.dtype not in (torch.float16, torch.bfloat16):  # in which a small factor would be rounded, or be zero
        scale = scale.to(tensor.dtype)
    if tensor.dim() < 2:
        return tensor, scale.view([1] * tensor.dim())
    if groups:
        return _grouped(tensor, groups), scale.view(groups, 1, -1, 1)
    return tensor, scale.view(-1, *[1] * (tensor.dim() - 1))


def _grouped(tensor: Tensor, groups: int) -> Tensor:
    """(I, O / groups, ...) as (groups, I / groups, O / groups, the rest)."""
    return tensor.unflatten(0, (groups, -1)).flatten(3)
