"""Say once more, where it is seen, that a training starts from random weights that were meant to be others."""

from typing import Any

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner


class RandomStartHook(Hook):
    """Warn, last before the first iteration, of what modules note about their random weights in ``random_start``.

    A checkpoint that is loaded or resumed replaces these weights: then nothing is said.
    """

    priority = 'VERY_LOW'

    def __init__(self) -> None:
        self.loaded = False

    def after_load_checkpoint(self, runner: Runner, checkpoint: Any) -> None:
        self.loaded = True

    def before_train(self, runner: Runner) -> None:
        model = runner.model.get_submodule('module') if is_model_wrapper(runner.model) else runner.model
        notes = [getattr(module, 'random_start', None) for module in model.modules()]
        for note in dict.fromkeys(filter(None, notes)):
            if not self.loaded:
                # in other words than before, as mmengine's logger passes over a warning that it has given
                runner.logger.warning(f'training begins, and no checkpoint was loaded. {note}')
