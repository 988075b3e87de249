"""Keep the weights of a run finite, whatever optimizer wrapper it has."""

import functools
import logging
import math
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import torch
from mmengine.dist import all_reduce, get_world_size
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.runner import Runner
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from nfnet_mm.errors import DivergedError, check_positive
from nfnet_mm.registry import HOOKS

from .later import Later
from .optim_wrapper import AGCOptimWrapper, iteration
from .sharded import local

# Of a weight's norm, of the learning rate, and of the two's like for a gradient: far above whatever is trained, whose
# square float32 still holds, and as far below its end as momentum and weight decay may lead in one step.
LIMIT = 1e18


def _dense(tensor: Tensor) -> Tensor:
    """The values of this process's part of it."""
    part = local(tensor)
    return part.coalesce().values() if part.is_sparse else part


def norms(tensors: Iterable[Tensor]) -> Tensor:
    """The L2 norm of each of the tensors, (n,) on the first one's device."""
    found = [_dense(one) for one in tensors]
    found = [one.float() if one.dtype is torch.float16 else one for one in found]  # in which the norm could overflow
    return torch.stack([norm.to(found[0].device, torch.float32) for norm in torch._foreach_norm(found)])


@HOOKS.register_module()
class FiniteWeightsHook(Hook):
    """Take no step that would make a weight NaN or infinite, and end a run whose weights grow towards it.

    AGC's optimizer wrappers and those with a loss scale leave out a step with a non-finite gradient by themselves;
    with any other, this hook does, counts it and logs the iteration and the parameter, and so it does with a gradient
    whose norm times the learning rate is above 1e18. After each iteration it looks at the weights, on CUDA a step or so
    later: a norm above 1e18 ends the run, before a checkpoint is saved, as does a learning rate that is no finite
    number. All processes decide alike, by what they have in common.

    Args:
        max_nonfinite_steps: so many steps in a row that are not taken end the run, as in AGC's wrappers; of several
            optimizers (a GAN's) so many of one.

    Raises:
        DivergedError: the run ends, for one of these reasons; a FloatingPointError and a UserError.
    """

    priority = 'ABOVE_NORMAL'  # before the checkpoint hook

    def __init__(self, max_nonfinite_steps: int = 20):
        self.max_nonfinite_steps = check_positive('FiniteWeightsHook max_nonfinite_steps', max_nonfinite_steps)
        self.names: dict[Tensor, str] = {}
        self.undo: list[Callable[[], Any]] = []
        self.alike = True  # the gradients on all processes
        self.skipped = 0
        self.in_a_row: Counter[int] = Counter()  # of each optimizer wrapper, by its id
        self.later = Later()

    def before_train(self, runner: Runner) -> None:
        self.after_train(runner)
        model, wrapper = runner.model, runner.optim_wrapper
        self.alike = get_world_size() == 1 or isinstance(model, DistributedDataParallel)
        model = model.get_submodule('module') if is_model_wrapper(model) else model
        self.names = {p: name for name, p in model.named_parameters() if p.requires_grad}
        wrappers = wrapper.values() if isinstance(wrapper, OptimWrapperDict) else [wrapper]
        for one in wrappers:
            if isinstance(one, OptimWrapper) and not isinstance(one, AGCOptimWrapper):
                self._guard(one)

    def after_train(self, runner: Runner) -> None:
        self.later.read(wait=True)
        while self.undo:
            self.undo.pop()()

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        rates = runner.optim_wrapper.get_lr()
        for rate in (rate for each in rates.values() for rate in (each if isinstance(each, list) else [])):
            if not abs(rate) < LIMIT:
                raise DivergedError(f'{iteration()}the learning rate is {rate}. The weights are still finite.')

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        params = [p for p in self.names if p.requires_grad]
        if params:
            self.later.put(self._agreed(norms(params)), functools.partial(self._look, params, iteration()))

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        self.later.read(wait=True)

    def _look(self, params: list[Tensor], at: str, sizes: list[float]) -> None:
        for p, size in zip(params, sizes):
            if not size < LIMIT:
                finite = all(one.isfinite().all() for one in params)
                left = 'The weights are still finite' if finite else 'It is not saved'
                what = f'{self.names[p]} has grown to a norm of {size:.3g}: the training has diverged'
                raise DivergedError(f'{at}{what}. {left}. Lower the learning rate.')

    def _agreed(self, sizes: Tensor) -> Tensor:
        """The largest of all processes; NaN where one has it."""
        if not self.alike:
            sizes = sizes.nan_to_num(math.inf, math.inf)
            all_reduce(sizes, 'max')
        return sizes

    def _guard(self, wrapper: OptimWrapper) -> None:
        """Have a wrapper's ``step`` look at the gradients first; a loss scale's own step leaves them out by itself."""
        plain_step, own = wrapper.step, vars(wrapper).get('step')

        @functools.wraps(plain_step)  # a scheduler marks what it has put there itself
        def step(**kwargs: Any) -> None:
            scaler = getattr(wrapper, 'loss_scaler', None)
            scaled = scaler is not None and scaler.is_enabled()
            trouble = self._trouble(wrapper, scaled)
            if trouble is None or scaled:
                plain_step(**kwargs)
            if trouble is None:
                self.in_a_row[id(wrapper)] = 0
            else:
                self._report(trouble, id(wrapper))

        vars(wrapper)['step'] = step
        self.undo.append(lambda: vars(wrapper).update(step=own) if own else vars(wrapper).pop('step'))

    def _trouble(self, wrapper: OptimWrapper, scaled: bool) -> str | None:
        """What is wrong with the gradients, if they are not to be stepped with."""
        params, limits = [], []
        for group in wrapper.optimizer.param_groups:
            found = [p for p in group['params'] if p.grad is not None]
            params += found
            # of a scaled gradient an overflow alone is told, as the scaler does
            limits += [math.inf if scaled else LIMIT / max(1.0, abs(float(group['lr'])))] * len(found)
        if not params:
            return None
        for p, size, limit in zip(params, self._agreed(norms(p.grad for p in params)).tolist(), limits):
            if not size < limit:
                name = self.names.get(p, f'a parameter of shape {tuple(p.shape)}')
                if self._agreed((~_dense(p.grad).isfinite()).any().float()[None]):
                    return f'non-finite gradient, first in {name}'
                if not scaled:
                    return f'a gradient of norm {size:.3g} in {name} is too large for this learning rate'
        return None

    def _report(self, trouble: str, wrapper: int) -> None:
        self.skipped += 1
        self.in_a_row[wrapper] += 1
        message = f'{iteration()}{trouble}: step skipped, {self.in_a_row[wrapper]} in a row, {self.skipped} in all'
        print_log(message, 'current', logging.WARNING)
        if self.in_a_row[wrapper] >= self.max_nonfinite_steps:
            limit = f'FiniteWeightsHook max_nonfinite_steps={self.max_nonfinite_steps}'
            raise DivergedError(f'{message}. Training stops here: {limit}. The weights are still finite.')
