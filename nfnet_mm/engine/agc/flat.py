"""Clipping on a GPU by torch's own kernels: few launches, whatever the number of parameters.

All gradients are copied into one vector, whose pieces are the units, and back. That moves more memory than tensor by
tensor, and a GPU has it to spare where launches are what a step waits for.
"""

import torch
from torch import Tensor

from .units import Grads, limits_of, unit_factors, units_first

# Norms are computed a second time of values so much smaller, which keeps that of any finite gradient finite.
_SMALLER = 2.0**-70


def can_be_flat(job: Grads) -> bool:
    """Whether float32 holds all values."""
    return all(t.dtype in (torch.float32, torch.float16, torch.bfloat16) for t in (*job.grads, *job.weights))


def clip_flat_(job: Grads, clipping: float, eps: float) -> tuple[Tensor, list[int]]:
    """Clip in place, without waiting for the device.

    Returns:
        the factor of every unit (1: not clipped; infinite: of non-finite norm, left as it is), and the number of units
        of each gradient.
    """
    found = [units_first(grad, n) for grad, n in zip(job.grads, job.groups)]
    views, sizes = [view for view, _ in found], [n for _, n in found]
    lengths = [view.numel() // n for view, n in zip(views, sizes)]
    flat = _flat(views)
    offsets = _offsets(sizes, lengths, flat.device)
    norms = _norms(flat, offsets)
    norms = torch.where(norms.isinf(), _norms(flat * _SMALLER, offsets) / _SMALLER, norms)
    limits = torch.full_like(norms, torch.inf)  # of those that are not clipped
    if job.weights:
        weights = _flat([units_first(weight, n)[0] for weight, n in zip(job.weights, job.groups)])
        count = sum(sizes[: len(job.weights)])
        limits[:count] = limits_of(_norms(weights, offsets[: count + 1]), clipping, eps)
    factors = unit_factors(norms, limits)
    applied = factors.where(factors < torch.inf, 1.0)
    flat *= applied.repeat_interleave(offsets.diff(), output_size=len(flat))
    pairs = [(view, one.view(view.shape)) for view, one in zip(views, flat.split([view.numel() for view in views]))]
    clipped = pairs[: len(job.weights)]
    # a transposed conv's would keep all from the multi-tensor kernel
    for part in ([pair for pair in clipped if pair[0].is_contiguous() is whole] for whole in (True, False)):
        if part:
            targets, sources = zip(*part)
            torch._foreach_copy_(targets, sources)
    return factors, sizes


def _flat(views: list[Tensor]) -> Tensor:
    return torch.cat([view.reshape(-1) for view in views]).float()


def _norms(flat: Tensor, offsets: Tensor) -> Tensor:
    return torch.segment_reduce(flat.square(), 'sum', offsets=offsets, unsafe=True).sqrt_()


_kept: dict[tuple, Tensor] = {}


def _offsets(sizes: list[int], lengths: list[int], device: torch.device) -> Tensor:
    """Where each unit begins in the vector, and the end; kept, as it is copied from the host."""
    key = (tuple(sizes), tuple(lengths), device)
    if key not in _kept:
        if len(_kept) > 8:
            _kept.clear()
        pieces = torch.tensor(lengths).repeat_interleave(torch.tensor(sizes))
        _kept[key] = torch.cat([torch.zeros(1, dtype=torch.long), pieces.cumsum(0)]).to(device)
    return _kept[key]
