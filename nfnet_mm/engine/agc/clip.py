"""The rule, and the choice of how it is computed: all give the same up to rounding.

On the CPU, by one compiled kernel over all parameters, or, without a compiler, block by block, so that a gradient is
scaled while it is in the cache; on CUDA, by one Triton kernel, or, without Triton, on all gradients as one vector;
tensor by tensor on other devices and where rows are spread over processes.
"""

from collections.abc import Container, Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from nfnet_mm.errors import UserError, check_number

from ..sharded import Shards, is_sharded, local
from .blocks import clip_by_blocks_
from .cpu_kernel import clip_by_cpu_kernel_
from .flat import can_be_flat, clip_flat_
from .kernel import clip_by_kernel_
from .units import Grads, limits_of, scale_, unit_factors, unit_norms


class ClipStats(NamedTuple):
    """What one call did. The 0-d tensors stay on the gradients' device: reading them is the caller's choice."""

    units: int
    clipped: Tensor  # number of units scaled down
    min_scale: Tensor  # the smallest factor applied, 1 where none was
    finite: Tensor  # whether every norm was; if not, units of non-finite norm were left as they are


class Verdict(NamedTuple):
    """What one call did, and where a gradient was not finite."""

    stats: ClipStats
    first: Tensor | None  # the first unit of non-finite norm, counted through ``params``; anything where all are finite
    params: list[Tensor]  # in the order of the units
    units: list[int]  # of each
    factors: Tensor  # of each unit, of this process's ones where they are spread: 1 not clipped, infinite not finite
    clipped: int  # how many of ``params``, from the first one on, were to be clipped; the others were only looked at


def on_device(tensor: Tensor) -> bool:
    """Whether a tensor is where the host must not look at each step."""
    return tensor.device.type == 'cuda'


def check_agc(clipping: float, eps: float) -> None:
    """Raise :class:`UserError` unless both are positive finite numbers."""
    hint = ' (the papers: clipping 0.01 at batch 4096 to 0.16 at 256, eps 1e-3)'
    check_number('AGC clipping', clipping, '(0, inf)', hint)
    check_number('AGC eps', eps, '(0, inf)', hint)


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
    return clip_(params, clipping, eps, transposed, norm_dtype, exclude).stats


@torch.no_grad()
def clip_(
    params: Iterable[Tensor],
    clipping: float = 0.01,
    eps: float = 1e-3,
    transposed: Mapping[Tensor, int] = {},
    norm_dtype: torch.dtype = torch.float32,
    exclude: Container[Tensor] = (),
) -> Verdict:
    """:func:`adaptive_clip_grad_`, and where on the device the first non-finite gradient is, by units."""
    check_agc(clipping, eps)
    found = _dense_grads([params] if isinstance(params, Tensor) else params)
    shards = Shards(found, transposed)
    clipped = [p for p in found if p not in exclude]
    left = [p for p in found if p in exclude]
    order = clipped + left
    groups = [transposed.get(p, 0) for p in order]
    if not shards and order and norm_dtype is torch.float32:
        job = Grads([found[p] for p in order], [p.detach() for p in clipped], groups)
        if on_device(order[0]):
            done = clip_by_kernel_(job, clipping, eps)
            if done is None and can_be_flat(job):
                done = clip_flat_(job, clipping, eps)
        else:
            done = clip_by_cpu_kernel_(job, clipping, eps)
        if done is not None:
            return _verdict(*done, order, len(clipped))
    finite = torch.stack(torch._foreach_norm([found[p] for p in left])).isfinite().all() if left else torch.tensor(True)
    if not clipped:
        none = torch.tensor(0), torch.tensor(1.0), finite
        return Verdict(
            ClipStats(0, *(shards.totals([], [], finite, torch.tensor(1.0)) if shards else none)),
            None,
            [],
            [],
            torch.ones(0),
            0,
        )
    grads, groups = [found[p] for p in clipped], groups[: len(clipped)]
    weights = [local(p.detach()) for p in clipped]
    if not shards and all(grad.device.type == 'cpu' for grad in grads):
        norms, limits = clip_by_blocks_(Grads(grads, weights, groups), clipping, eps, norm_dtype)
        factors = unit_factors(torch.cat(norms), torch.cat(limits))
    else:
        norms, limits = unit_norms(grads, groups, norm_dtype), unit_norms(weights, groups, norm_dtype)
        if shards:
            shards.complete(norms, clipped)
            shards.complete(limits, clipped)
        factors = unit_factors(torch.cat(norms), limits_of(torch.cat(limits), clipping, eps))
        scale_(grads, factors.where(factors.isfinite(), 1.0).split([n.numel() for n in norms]), groups)
    sizes = [n.numel() for n in norms]
    stats = _verdict(factors, sizes, clipped, len(clipped)).stats
    all_finite = stats.finite & finite if left else stats.finite
    if shards:
        units = sum(p.shape[0] if p.dim() > 1 and is_sharded(p) else n for p, n in zip(clipped, sizes))
        told = shards.totals(clipped, (factors < 1).split(sizes), all_finite, stats.min_scale)
        return Verdict(ClipStats(units, *told), None, clipped, sizes, factors, len(clipped))
    return Verdict(stats._replace(finite=all_finite), None, clipped, sizes, factors, len(clipped))


def _verdict(factors: Tensor, sizes: list[int], params: list[Tensor], clipped: int) -> Verdict:
    """From the factor of every unit: below 1 where it was scaled, infinite where its norm was not finite."""
    if not factors.numel():  # of a process without rows
        return Verdict(
            ClipStats(
                0, factors.new_zeros((), dtype=torch.long), factors.new_ones(()), factors.new_ones((), dtype=torch.bool)
            ),
            None,
            params,
            sizes,
            factors,
            clipped,
        )
    low, high = factors.aminmax()
    stats = ClipStats(sum(sizes[:clipped]), (factors < 1).sum(), low.clamp(max=1), high < torch.inf)
    return Verdict(stats, factors.argmax(), params, sizes, factors, clipped)


@torch.no_grad()
def of_each_parameter(
    verdict: Verdict, transposed: Mapping[Tensor, int] = {}
) -> tuple[list[Tensor], list[int], Tensor]:
    """What was clipped of each parameter, without waiting for the device.

    Returns:
        the n parameters that were to be clipped; the units of each; and (2, n) on the device of the gradients: how many
        of these were, and the smallest factor. Of parameters that are spread over processes, what all these clipped,
        if they all call this.
    """
    params, sizes = verdict.params[: verdict.clipped], verdict.units[: verdict.clipped]
    factors = verdict.factors[: sum(sizes)]
    owner = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes, dtype=torch.long))
    if on_device(factors):
        owner = owner.pin_memory().to(factors.device, non_blocking=True)
    told = factors.new_zeros(2, len(sizes))
    told[1] = 1
    told[0].index_add_(0, owner, (factors < 1).to(told.dtype))
    told[1].scatter_reduce_(0, owner, factors, 'amin')
    shards = Shards(params, transposed)
    if shards:
        sizes = [p.shape[0] if p.dim() > 1 and is_sharded(p) else n for p, n in zip(params, sizes)]
        told = shards.of_each(params, told)
    return params, sizes, told


def _dense_grads(params: Iterable[Tensor]) -> dict[Tensor, Tensor]:
    """The gradient of each parameter that has one and is not empty."""
    grads: dict[Any, Tensor] = {p: local(p.grad) for p in params if p.grad is not None and p.numel()}
    for p, grad in grads.items():
        if grad.layout is not torch.strided:
            raise UserError(
                f'the gradient of a parameter of shape {tuple(p.shape)} is sparse ({grad.layout}), and '
                'AGC takes dense ones: build its nn.Embedding with sparse=False'
            )
    return grads
