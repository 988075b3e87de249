"""Clipping on a CPU, where memory is what it costs: a block of rows is scaled while it is in the cache."""

import torch
from torch import Tensor

from .units import Grads, aligned, limits_of, unit_factors, unit_norms

# Values of a block: 4 MB of float32. Tensors of fewer than the other are looked at together.
_BLOCK, _SMALL = 1 << 20, 1 << 14


def clip_by_blocks_(job: Grads, clipping: float, eps: float, dtype: torch.dtype) -> tuple[list[Tensor], list[Tensor]]:
    """Clip in place; returns each gradient's norms and limits, (units,) each."""
    found: list[tuple[Tensor, Tensor]] = [(torch.empty(0), torch.empty(0))] * len(job.grads)
    small = [i for i, grad in enumerate(job.grads) if grad.numel() < _SMALL]
    for i, (grad, weight, groups) in enumerate(zip(job.grads, job.weights, job.groups)):
        if grad.numel() < _SMALL:
            continue
        rows = max(1, _BLOCK * len(grad) // grad.numel()) if grad.dim() > 1 and not groups else len(grad)
        parts = []
        for block, weights in zip(grad.split(rows), weight.split(rows)):
            # the weights first, so that it is the gradient that is still in the cache
            limit = limits_of(unit_norms((weights,), (groups,), dtype)[0], clipping, eps)
            norm = unit_norms((block,), (groups,), dtype)[0]
            if _any_over(norm, limit):
                _scale_(block, unit_factors(norm, limit), groups)
            parts.append((norm, limit))
        found[i] = parts[0] if len(parts) == 1 else (torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts]))
    if small:
        groups_ = [job.groups[i] for i in small]
        norms = unit_norms([job.grads[i] for i in small], groups_, dtype)
        sizes = [norm.numel() for norm in norms]
        weight_norms = unit_norms([job.weights[i] for i in small], groups_, dtype)
        every, allowed = torch.cat(norms), limits_of(torch.cat(weight_norms), clipping, eps)
        factors, over, start = unit_factors(every, allowed).split(sizes), (every > allowed).tolist(), 0
        for i, norm, limit, factor in zip(small, norms, allowed.split(sizes), factors):
            found[i] = norm, limit
            if True in over[start : start + len(norm)]:
                _scale_(job.grads[i], factor, job.groups[i])
            start += len(norm)
    return [norm for norm, _ in found], [limit for _, limit in found]


def _any_over(norm: Tensor, limit: Tensor) -> bool:
    return not float((limit - norm).amin()) >= 0  # nor a NaN


def _scale_(grad: Tensor, factors: Tensor, groups: int) -> None:
    view, factors = aligned(grad, factors.where(factors < torch.inf, 1.0), groups)
    view.mul_(factors)
