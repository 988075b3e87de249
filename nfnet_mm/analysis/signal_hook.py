"""Log a network's signal propagation while it is trained."""

import torch
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from nfnet_mm.errors import UserError, check_positive
from nfnet_mm.registry import HOOKS

from .signal_blocks import in_mode
from .signal_propagation import signal_propagation

_NAMES = ('avg_sq_mean', 'avg_var', 'res_avg_var')


@HOOKS.register_module()
class SignalPropagationHook(Hook):
    """Give the signal propagation of the backbone (NF-ResNets, section 3) to the visualizer, TensorBoard's or another.

    Scalars ``signal/<block>/avg_sq_mean``, ``.../avg_var`` and ``.../res_avg_var``, before the first iteration and
    every ``interval`` after it, of the same Gaussian noise each time, in eval mode and float32. The training is not
    changed: same weights, averages and random numbers.

    Args:
        interval: iterations.
        batch_size: images of noise.
        size: their height and width, in pixels.
        seed: of the noise.

    Raises:
        UserError: the model has no backbone, is spread over processes, or a number is no positive integer.
    """

    priority = 'LOW'

    def __init__(self, interval: int = 500, batch_size: int = 4, size: int = 128, seed: int = 0):
        self.interval = check_positive('SignalPropagationHook interval', interval)
        self.batch_size = check_positive('SignalPropagationHook batch_size', batch_size)
        self.size = check_positive('SignalPropagationHook size', size)
        self.seed = seed

    def before_train(self, runner: Runner) -> None:
        model = runner.model
        if is_model_wrapper(model) and not isinstance(model, DistributedDataParallel):
            kind = type(model).__name__
            raise UserError(f'SignalPropagationHook needs the whole model in each process, which {kind} does not keep')
        if not isinstance(getattr(self._whole(runner), 'backbone', None), torch.nn.Module):
            raise UserError(f'SignalPropagationHook needs a model with a backbone, got {type(model).__name__}')
        if runner.iter == 0:
            self._log(runner, 0)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: object = None, outputs: object = None
    ) -> None:
        if self.every_n_train_iters(runner, self.interval):
            self._log(runner, runner.iter + 1)

    def _whole(self, runner: Runner) -> torch.nn.Module:
        return runner.model.module if is_model_wrapper(runner.model) else runner.model  # type: ignore[return-value]

    def _images(self, backbone: torch.nn.Module) -> Tensor:
        channels = getattr(backbone, 'in_channels', 3)
        random = torch.Generator().manual_seed(self.seed)
        return torch.randn(self.batch_size, channels, self.size, self.size, generator=random)

    def _log(self, runner: Runner, step: int) -> None:
        if runner.rank:  # the visualizer writes in the first process alone
            return
        backbone = self._whole(runner).get_submodule('backbone')
        with in_mode(backbone, False):
            rows = signal_propagation(backbone, self._images(backbone))
        found = {f'signal/{row.block}/{name}': getattr(row, name) for row in rows for name in _NAMES}
        runner.visualizer.add_scalars({k: v for k, v in found.items() if v == v}, step=step)
