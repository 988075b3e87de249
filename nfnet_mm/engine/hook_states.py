"""Let hooks that count go on counting in a resumed run."""

import logging
from typing import Any

import numpy as np
from mmengine.hooks import EarlyStoppingHook, Hook
from mmengine.logging import print_log
from mmengine.runner import Runner

_EARLY_STOPPING = ('wait_count', 'best_score')


class HookStatesHook(Hook):
    """Keep in checkpoints the state of hooks, and give it back when a run is resumed.

    That is mmengine's ``EarlyStoppingHook``, and each hook that has ``state_dict`` and ``load_state_dict``.
    """

    def __init__(self) -> None:
        self.restored: dict[str, Any] | None = None

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        checkpoint['hook_states'] = {name: _state(hook) for name, hook in _with_state(runner).items()}

    def after_load_checkpoint(self, runner: Runner, checkpoint: Any) -> None:
        if runner._resume and isinstance(checkpoint, dict):
            self.restored = checkpoint.get('hook_states', {})

    def before_train(self, runner: Runner) -> None:
        states, self.restored = self.restored, None
        if states is None:
            return
        for name, hook in _with_state(runner).items():
            if name not in states:
                print_log(f'{name} begins anew: the checkpoint holds no state of it', 'current', logging.WARNING)
            elif isinstance(hook, EarlyStoppingHook):
                vars(hook).update(states[name])
            else:
                hook.load_state_dict(states[name])


def _with_state(runner: Runner) -> dict[str, Any]:
    """The hooks that have a state, by names of their own."""
    found: dict[str, Any] = {}
    for hook in runner.hooks:
        own = all(callable(getattr(hook, name, None)) for name in ('state_dict', 'load_state_dict'))
        if own or isinstance(hook, EarlyStoppingHook):
            kind = type(hook).__name__
            same = sum(type(one).__name__ == kind for one in found.values())
            found[f'{kind}.{same}' if same else kind] = hook
    return found


def _state(hook: Any) -> dict[str, Any]:
    if not isinstance(hook, EarlyStoppingHook):
        return hook.state_dict()
    values = {name: getattr(hook, name) for name in _EARLY_STOPPING}
    return {name: one.item() if isinstance(one, np.generic) else one for name, one in values.items()}
