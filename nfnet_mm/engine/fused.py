"""torch's fused optimizers: one pass over the weights, and steps that the device itself leaves out.

They read ``optimizer.found_inf``, as ``GradScaler`` sets it: where it is 1, nothing is written.
"""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from .sharded import is_sharded

_KINDS = (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW)
_IMPLEMENTATIONS = ('fused', 'foreach')


def can_be_fused(kind: Any, options: Mapping[str, Any], model: nn.Module) -> bool:
    """Whether an optimizer of this class and these options should be torch's fused one.

    Not where the options choose an implementation, nor where the fused one does not do the same: sparse gradients,
    weights that are spread over processes, of several devices or types, or with gaps in memory (a part of a tensor), a
    tensor as rate, SGD's dampening.
    """
    if kind not in _KINDS or 'fused' not in inspect.signature(kind).parameters:
        return False
    if not hasattr(kind, 'register_load_state_dict_pre_hook'):
        return False
    chosen = (*_IMPLEMENTATIONS, 'differentiable', 'capturable', 'dampening')
    if any(options.get(key) is not None for key in _IMPLEMENTATIONS) or any(options.get(key) for key in chosen):
        return False
    params = list(model.parameters())
    if not params or any(is_sharded(p) or isinstance(options.get('lr'), Tensor) for p in params):
        return False
    if any(torch.empty_like(p, device='meta').stride() != p.stride() for p in params):
        return False
    if any(getattr(module, 'sparse', False) for module in model.modules()):
        return False
    floats = {(p.device, p.dtype) for p in params if p.is_floating_point()}
    if len(floats) != 1 or any(p.is_complex() for p in params):
        return False
    ((device, dtype),) = floats
    return device.type in ('cpu', 'cuda') and dtype in (torch.float32, torch.float64) and _works(kind, device, dtype)


def _works(kind: Any, device: torch.device, dtype: torch.dtype) -> bool:
    """Whether this torch has the fused kernel for the device: it came to optimizers and devices one by one."""
    weight = torch.zeros(2, device=device, dtype=dtype, requires_grad=True)
    weight.grad = torch.zeros_like(weight)
    try:
        kind([weight], lr=0.0, fused=True).step()
    except (RuntimeError, NotImplementedError, AttributeError):
        return False
    return True


def steps_on_device(optimizer: torch.optim.Optimizer) -> bool:
    """Whether a step of the optimizer is left out where ``found_inf`` is 1, without a look from the host."""
    fused = all(group.get('fused') for group in optimizer.param_groups)
    return type(optimizer) in _KINDS and fused and not any(group.get('dampening') for group in optimizer.param_groups)


@contextmanager
def left_out_where(found_inf: Tensor, optimizer: Any) -> Iterator[None]:
    """Within, a fused optimizer's step does nothing where the 0-d float32 tensor is 1."""
    prepare(optimizer)
    optimizer.grad_scale, optimizer.found_inf = None, found_inf
    try:
        yield
    finally:
        del optimizer.grad_scale, optimizer.found_inf


@torch.no_grad()
def prepare(optimizer: torch.optim.Optimizer) -> None:
    """Before a step of a fused optimizer: what its kernels take for granted.

    SGD makes a first momentum within its step: it is not initialised where that is left out, and to make one fails
    where other weights have one, as when some are unfrozen later; without dampening one of zero is the same. A gradient
    or momentum that is laid out in memory otherwise than its weight is an error on CUDA, and on a CPU mistaken for one
    that is not.
    """
    for group in optimizer.param_groups:
        if not group.get('fused'):
            continue
        begins = bool(group.get('momentum')) and not group.get('dampening')
        for p in group['params']:
            if p.grad is None:
                continue
            if p.grad.stride() != p.stride():
                p.grad = _laid_out_as(p, p.grad)
            state = optimizer.state[p]
            if begins and state.get('momentum_buffer') is None:
                state['momentum_buffer'] = torch.zeros_like(p)
            for key, value in state.items():
                if isinstance(value, Tensor) and value.shape == p.shape and value.stride() != p.stride():
                    state[key] = _laid_out_as(p, value)


def _laid_out_as(p: Tensor, value: Tensor) -> Tensor:
    if all(size == 1 or one == other for size, one, other in zip(p.shape, p.stride(), value.stride())):
        return value.as_strided(p.shape, p.stride())  # the same memory: a pointwise conv has its strides in two ways
    return torch.empty_like(p, dtype=value.dtype).copy_(value)


def _before_step(optimizer: torch.optim.Optimizer, args: Sequence, kwargs: Mapping) -> None:
    prepare(optimizer)


def _before_load(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> dict[str, Any]:
    """Keep this optimizer's implementation, where the state is that of another; torch would take the other's."""
    groups = [dict(group) for group in state['param_groups']]
    for group, own in zip(groups, optimizer.param_groups):
        group.update({key: own[key] for key in _IMPLEMENTATIONS if key in own})
    return {**state, 'param_groups': groups}


def make_safe(optimizer: torch.optim.Optimizer) -> None:
    """Let an optimizer, if it is or may be fused, take states of another implementation, and see to :func:`prepare`."""
    if type(optimizer) in _KINDS and hasattr(optimizer, 'register_load_state_dict_pre_hook'):
        optimizer.register_load_state_dict_pre_hook(_before_load)
        optimizer.register_step_pre_hook(_before_step)
