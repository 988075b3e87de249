"""Sharpness-aware minimisation, made cheap as in NFNets (Appendix A.4)."""

import copy
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from math import floor
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.model import BaseModel, is_model_wrapper
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.runner import Runner
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from nfnet_mm.errors import UserError, check_number
from nfnet_mm.registry import HOOKS


def perturb_(params: list[Tensor], grads: list[Tensor], rho: float) -> list[Tensor]:
    """Add rho * g / ||g|| to the parameters in place, with the norm over all of them; return copies from before.

    Source: Foret et al. 2021, equation 2 with p = 2. A gradient of zero moves nothing.

    Example:
        >>> w = torch.tensor([1., 1.])
        >>> perturb_([w], [torch.tensor([30., 40.])], rho=0.05), w
        ([tensor([1., 1.])], tensor([1.0300, 1.0400]))
    """
    with torch.no_grad():
        saved = [p.detach().clone() for p in params]
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(grads)))
        # not in place: two parameters may have been given the same gradient tensor
        torch._foreach_add_(params, torch._foreach_mul(grads, rho / norm.clamp(min=1e-12)))
    return saved


def share_of(fraction: float, batch: int, before: int) -> int:
    """How many samples of the next batch to take after ``before`` of its size, for a share of all that is ``fraction``.

    The share is right to half a sample at every batch, unless that takes less than the one sample that each gives.

    >>> [share_of(0.2, 8, before) for before in range(5)]
    [2, 1, 2, 1, 2]
    """
    taken, all_taken = (floor(fraction * batch * batches + 0.5) for batches in (before, before + 1))
    return min(max(1, all_taken - taken), batch)


def part_of(data: Any, batch: int, kept: Sequence[int]) -> Any:
    """A copy of those of ``batch`` samples that ``kept`` names, from tensors (batch, ...) and lists, however nested.

    A list as long as the batch holds its samples, unless each item is a tensor (batch, C, H, W) or of more
    dimensions: those are as many views of the batch, and cut one by one like the items of any other list.

    Raises:
        ValueError: a tensor whose first dimension is not the batch, or a list that may be either.

    Example:
        >>> part_of(dict(inputs=torch.arange(6), data_samples=list('abcdef')), 6, [0, 2])
        {'inputs': tensor([0, 2]), 'data_samples': ['a', 'c']}
    """
    if isinstance(data, Tensor) and data.dim():
        if len(data) != batch:
            what = f'a part of a tensor of shape {tuple(data.shape)} in a batch of {batch} samples'
            raise UserError(f'SAMHook cannot take {what}; fraction=1 takes the whole batch')
        return data[list(kept)]
    if isinstance(data, Mapping):
        return {key: part_of(value, batch, kept) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        if len(data) == batch and not _are_views(data, batch):
            parts = [copied(data[i]) for i in kept]
        else:
            parts = [part_of(value, batch, kept) for value in data]
        return tuple(parts) if isinstance(data, tuple) else parts
    return data


def _are_views(data: Sequence, batch: int) -> bool:
    """Whether a list as long as the batch holds views of it and not its samples."""
    for item in data:
        known = item.dim() not in (0, 3) if isinstance(item, Tensor) else isinstance(item, (list, tuple))
        if not known or len(item) != batch:
            return False
    if all(isinstance(item, Tensor) and item.dim() > 3 for item in data):
        return True
    item = data[0]
    what = f'tensors of shape {tuple(item.shape)}' if isinstance(item, Tensor) else f'lists of {len(item)}'
    raise UserError(
        f'SAMHook cannot tell whether a list of {batch} {what} holds the {batch} samples of a batch or as '
        'many views of it; fraction=1 takes the whole batch'
    )


def copied(data: Any) -> Any:
    """A copy that a loss may write into, as some do into their samples; gradients flow through its tensors."""
    if isinstance(data, Tensor):
        return data.clone()
    if type(data) is dict:
        return {key: copied(value) for key, value in data.items()}
    if type(data) in (list, tuple):
        return type(data)(copied(value) for value in data)
    return copy.deepcopy(data)


def batch_size(data: Any) -> int | None:
    """Of what a model's forward is given: how many data samples, or else the length of the first tensor or list.

    A list of tensors (N, C, H, W) of one N counts as views of N samples.

    >>> batch_size(dict(inputs=[torch.zeros(6, 3), torch.zeros(6, 3)], data_samples=list('abcdef'), mode='loss'))
    6
    """
    if isinstance(data, Mapping):
        first = [data['data_samples']] if isinstance(data.get('data_samples'), (list, tuple)) else []
        return next(filter(None, map(batch_size, [*first, *data.values()])), None)
    if isinstance(data, (list, tuple)) and data and all(isinstance(item, Tensor) and item.dim() > 3 for item in data):
        lengths = {len(item) for item in data}
        if len(lengths) == 1:
            return lengths.pop()
    return len(data) if isinstance(data, (list, tuple)) or (isinstance(data, Tensor) and data.dim()) else None


def gradients_by_backward(loss: Tensor, params: Sequence[Tensor]) -> list[Tensor | None]:
    """``torch.autograd.grad`` of leaves by way of their ``.grad``, which are afterwards the tensors that they were."""
    before = [p.grad for p in params]
    try:
        for p in params:
            p.grad = None
        loss.backward()
        return [p.grad for p in params]
    finally:
        for p, grad in zip(params, before):
            p.grad = grad


def has_reentrant_checkpoint(loss: Tensor) -> bool:
    """Whether ``torch.utils.checkpoint(..., use_reentrant=True)`` made part of the graph.

    The parameters inside are not to be found in the graph, so that ``torch.autograd.grad`` either refuses or, where
    no others come before them, takes them for unused without a word.
    """
    nodes, seen = [loss.grad_fn], set()
    while nodes:
        node = nodes.pop()
        if node is not None and node not in seen:
            if 'CheckpointFunction' in node.name():
                return True
            seen.add(node)
            nodes += [following for following, _ in node.next_functions]
    return False


def around_backward(wrapper: OptimWrapper, before: Callable[[], None], after: Callable[[], None]) -> Callable[[], None]:
    """Call two functions before and after each ``backward`` of an optimizer wrapper, the second also if it fails.

    mmengine has no hook there. This replaces the method of the instance, and relies on a model's ``train_step`` ending
    in the wrapper's ``update_params``, which calls ``self.backward(loss)`` once and after it, if at all, ``self.step``.

    Returns: a function that puts the method back.
    """
    plain_backward = wrapper.backward

    def backward(loss: Tensor, **kwargs: Any) -> None:
        before()
        try:
            plain_backward(loss, **kwargs)
        finally:
            after()

    vars(wrapper)['backward'] = backward
    return lambda: vars(wrapper).pop('backward')


@HOOKS.register_module()
class SAMHook(Hook):
    """Take each gradient at the weights w + rho * g / ||g||, where g is that of a part of the same batch.

    Source: NFNets, Appendix A.4: a fifth of the batch gives the accuracy of the whole for 20-40% more time instead
    of 100%; another batch than that of the descent destroys it; each replica goes by its own g.

    It acts where the loss is computed and needs nothing from the training loop: when the unwrapped model is called
    with ``mode='loss'``, g is computed for some samples of the batch as it is at that point, preprocessed and mixed,
    and the weights are moved; as soon as the optimizer wrapper has been through ``backward`` they are restored bit
    for bit. So it is the weights themselves that are clipped against, decayed and updated. ``.grad`` is untouched by
    g, which is neither synchronised nor accumulated: each of several accumulated batches goes by its own, which the
    paper recommends on few devices. Buffers do not notice the additional pass, random numbers do.

    Works with any optimizer wrapper that has one optimizer, with and without AGC or mixed precision. Weights are
    noised that require a gradient; one copy of them is held during a step. Where the model has reentrant checkpoints
    g goes by way of ``.grad``, whose tensors are put back; hooks for accumulated gradients run then.

    Args:
        rho: the radius.
        fraction: the part of the samples that g is computed from, evenly spaced in each batch, as that may be ordered
            (one half MixUp, the other CutMix). It is kept over the run (see :func:`share_of`), so that a fifth of
            batches of 8 is 2, 1, 2, 1, 2 samples. See :func:`part_of` for what can be cut; with ``fraction=1``, inputs
            may be anything.

    Raises:
        ValueError: ``rho`` is not a positive finite number or ``fraction`` not in (0, 1], or some input is not a
            sequence over the batch, or may or may not be one.
        RuntimeError: the model is sharded, has several optimizers, computes its loss in some other way, or its loss
            depends on no parameter that requires a gradient.

    Example:
        >>> SAMHook(fraction=20)
        Traceback (most recent call last):
            ...
        nfnet_mm.errors.UserError: SAMHook fraction=20 must be a number in (0, 1] (the paper: 0.2)
    """

    def __init__(self, rho: float = 0.05, fraction: float = 0.2):
        self.rho = check_number('SAMHook rho', rho, '(0, inf)', ' (the paper: 0.05)')
        self.fraction = check_number('SAMHook fraction', fraction, '(0, 1]', ' (the paper: 0.2)')
        self._params: list[Tensor] = []
        self._saved: list[Tensor] = []
        self._installed = ExitStack()
        self._by_backward = False
        self._batches = 0  # of the run until now

    def before_train(self, runner: Runner) -> None:
        self.after_train(runner)
        model, wrapper = runner.model, runner.optim_wrapper
        if isinstance(wrapper, OptimWrapperDict):
            several = ', '.join(wrapper.optim_wrappers)
            raise RuntimeError(f'SAMHook goes with one optimizer, not with those of an OptimWrapperDict ({several})')
        if is_model_wrapper(model):
            if not isinstance(model, DistributedDataParallel):
                where = f'under {type(model).__name__}, where no process has the whole gradient'
                raise RuntimeError(f'SAMHook does not work {where}. Use DistributedDataParallel.')
            model = model.module

        # plain functions, so that a deep copy of the model shares the hook instead of copying what it refers to
        def before_forward(called: BaseModel, args: tuple, kwargs: dict[str, Any]) -> None:
            if called is model and model.training and kwargs.get('mode') == 'loss' and torch.is_grad_enabled():
                self._restore()
                self._ascend(model, args, kwargs, getattr(wrapper, 'loss_scaler', None))

        def check_moved() -> None:
            if not self._saved:
                raise RuntimeError(
                    f'SAMHook: {type(model).__name__} computed its loss otherwise than by calling '
                    "itself with mode='loss', so its weights were not moved"
                )

        self._installed.callback(model.register_forward_pre_hook(before_forward, with_kwargs=True).remove)
        self._installed.callback(around_backward(wrapper, check_moved, self._restore))

    def after_train(self, runner: Runner) -> None:
        self._restore()
        self._installed.close()

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        # a loop that accumulates comes here once for all batches of an update; a resumed run goes on where it was
        self._batches = runner.iter * getattr(runner.train_loop, 'accumulation', 1)

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        self._restore()  # for a model that computed a loss and then took no step

    def _ascend(self, model: BaseModel, args: tuple, kwargs: dict[str, Any], scaler: Any) -> None:
        part, named_part = self._part(model, args, kwargs)
        params: list[Tensor] = [p for p in model.parameters() if p.requires_grad]
        buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
        # forward() itself: neither this hook again nor a distributed wrapper, which would synchronise
        loss, _ = model.parse_losses(model.forward(*part, **named_part))
        scaled = scaler is not None and scaler.is_enabled()
        grads: Sequence[Tensor | None] = []
        with torch.autocast(loss.device.type, enabled=False):  # backward wants no autocast, and we may be within one
            loss = scaler.scale(loss) if scaled else loss
            self._by_backward = self._by_backward or has_reentrant_checkpoint(loss)
            if self._by_backward:
                grads = gradients_by_backward(loss, params)
            elif params:
                grads = torch.autograd.grad(loss, params, allow_unused=True)
        # an overflow is to be found in the gradient that is stepped with, not spread over the weights
        found = {p: g.nan_to_num(0, 0, 0) if scaled else g for p, g in zip(params, grads) if g is not None}
        if not found:
            what = f'none of its {len(params)} parameters that require a gradient, so there is nothing to move'
            raise RuntimeError(f'SAMHook: the loss of {type(model).__name__} depends on {what}')
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)
        self._params = list(found)
        self._saved = perturb_(self._params, list(found.values()), self.rho)
        torch.clear_autocast_cache()  # it holds low-precision copies of the weights

    def _part(self, model: BaseModel, args: tuple, kwargs: dict[str, Any]) -> tuple[Sequence, dict[str, Any]]:
        """The arguments for g, each cut by itself."""
        batch = batch_size({**dict(enumerate(args)), **kwargs})
        if not batch and self.fraction < 1:
            where = f'in the inputs of {type(model).__name__}: neither tensors nor data_samples'
            raise UserError(f'SAMHook finds no batch {where}; fraction=1 takes whatever they are')
        n = share_of(self.fraction, batch or 0, self._batches)
        self._batches += 1
        if not batch or n == batch:
            return copied(args), copied(kwargs)
        kept = [i * batch // n for i in range(n)]
        return [part_of(value, batch, kept) for value in args], part_of(kwargs, batch, kept)

    def _restore(self) -> None:
        if self._saved:
            with torch.no_grad():
                torch._foreach_copy_(self._params, self._saved)
            torch.clear_autocast_cache()
            self._params, self._saved = [], []
