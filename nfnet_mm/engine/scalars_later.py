"""Losses reach the log without the host waiting for them."""

from typing import Any

import torch
from mmengine.hooks import RuntimeInfoHook
from mmengine.runner import Runner
from torch import Tensor

from nfnet_mm.registry import HOOKS

from .agc import clip
from .later import Later
from .optim_wrapper import AGCOptimWrapper


@HOOKS.register_module()
class ScalarsLaterHook(RuntimeInfoHook):
    """mmengine's ``RuntimeInfoHook``, which reads each loss at each iteration and so waits for the device to finish it.

    On CUDA they are read when they have arrived, a step or so later: one copy for all of an iteration, none of which is
    lost. Validation, a checkpoint and the end of training wait for those that are outstanding. Anywhere else it is as
    in mmengine.
    """

    def __init__(self) -> None:
        self._later = Later()

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict[str, Any] | None = None
    ) -> None:
        outputs = outputs or {}
        names = [
            key
            for key, value in outputs.items()
            if isinstance(value, Tensor) and value.numel() == 1 and clip.on_device(value)
        ]
        others = {key: value for key, value in outputs.items() if key not in names}
        super().after_train_iter(runner, batch_idx, data_batch, others)
        if not names:
            return

        def use(told: list[float]) -> None:
            for key, value in zip(names, told):
                runner.message_hub.update_scalar(f'train/{key}', value)

        values = [outputs[key].detach().view(()) for key in names]
        alike = len({value.dtype for value in values}) == 1
        self._later.put(torch.stack(values if alike else [value.double() for value in values]), use)

    def settle(self, runner: Runner) -> None:
        """Wait for what is outstanding, of the optimizer wrapper too."""
        self._later.read(wait=True)
        if isinstance(runner.optim_wrapper, AGCOptimWrapper):
            runner.optim_wrapper.settle()

    def before_val(self, runner: Runner) -> None:
        if runner.message_hub.runtime_info.get('loop_stage') == 'train':
            self.settle(runner)
        super().before_val(runner)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        self.settle(runner)
        if 'message_hub' in checkpoint:  # made before
            checkpoint['message_hub'] = runner.message_hub.state_dict()

    def after_train(self, runner: Runner) -> None:
        self.settle(runner)
