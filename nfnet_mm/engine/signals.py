"""End a run between two steps, with a checkpoint, when the machine asks for it."""

import functools
import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from multiprocessing import resource_tracker
from types import FrameType
from typing import Any

import torch
from mmengine.dist import get_world_size
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import Runner
from torch import distributed
from torch.utils.data import DataLoader

from nfnet_mm.registry import HOOKS

from .checkpoint_hook import SafeCheckpointHook

# sysexits.h: a temporary failure, try again later
EXIT_STATUS = 75
SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
_LOOK = 5.0  # seconds between a data worker's looks at whether the process that it works for is there


@HOOKS.register_module()
class StopOnSignalHook(Hook):
    """On SIGTERM or SIGUSR1, finish the step, save a checkpoint and exit with status 75, on all processes together.

    These are what a cluster sends before it takes the machine away. It is enough if one process gets the signal: each
    step the others are asked, without waiting for the answer, which is looked at a step later. A validation is left at
    once if there is a checkpoint of the step before it, and otherwise finished. A second signal ends the process at
    once. Data workers, to which a launcher or Slurm sends them too, work on until their process ends them.
    """

    priority = 'LOWEST'  # after the checkpoint hook

    def __init__(self) -> None:
        self.received: int = 0
        self.noted = 0  # agreed on, during a validation
        self.asked: tuple[torch.Tensor, Any] | None = None
        self.group: Any = None
        self.before: dict[int, Any] = {}

    def before_train(self, runner: Runner) -> None:
        if threading.current_thread() is threading.main_thread():  # only there can a program listen
            self.before = {number: signal.signal(number, self._note) for number in SIGNALS}
        if get_world_size() > 1:
            self.group = distributed.new_group(backend='gloo')  # on the host, beside the devices' own
        for loop in (runner.train_loop, runner.val_loop):
            if loop is not None and self.before and loop.dataloader.num_workers:
                loader = loop.dataloader
                loader.worker_init_fn = functools.partial(_keep_working, loader.worker_init_fn, os.getpid())
                # what a loader calls to start its workers
                loader._get_iterator = functools.partial(_start_workers, loader, loader._get_iterator)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = number
        signal.signal(number, self.before[number])

    def after_train(self, runner: Runner) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        if number := self._agreed():
            self._stop(runner, number, runner.iter + 1)

    def after_val_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        # a run that only validates is no run to be gone on with
        if self.before and (number := self.noted or self._agreed()):
            self.noted = number
            # the weights may be averaged ones now
            if all(hook.saved_at == runner.iter for hook in _checkpoint_hooks(runner)):
                self._stop(runner, number, runner.iter)

    def after_val(self, runner: Runner) -> None:
        if self.noted:
            self._stop(runner, self.noted, runner.iter)

    def _agreed(self) -> int:
        """The signal that any process had got a step ago, on all processes the same."""
        if self.group is None:
            return self.received
        answer = 0
        if self.asked is not None:
            self.asked[1].wait()
            answer = int(self.asked[0])
        mine = torch.tensor(self.received)
        self.asked = mine, distributed.all_reduce(mine, distributed.ReduceOp.MAX, group=self.group, async_op=True)
        return answer

    def _stop(self, runner: Runner, number: int, done: int) -> None:
        saved = 'NO checkpoint was saved: the config has none of the checkpoint hooks'
        for hook in _checkpoint_hooks(runner):
            hook.save_now(runner, done)
            saved = f'{hook.last_ckpt} is its checkpoint'
        what = f'{signal.Signals(number).name}: the run ends after iteration {done}; {saved}'
        print_log(f'{what}; --resume goes on from it (exit status {EXIT_STATUS})', 'current', logging.WARNING)
        raise SystemExit(EXIT_STATUS)


def _start_workers(loader: DataLoader[Any], start: Callable[[], Any]) -> Any:
    """Start data workers with the signals blocked in all of their threads, and in the process that forks them.

    A library may start threads in a worker before `_keep_working` is called there, at the fork itself even (where a
    process has called `torch.set_num_threads`, one does), and a signal ends a process if any thread lets it through.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        if (loader.multiprocessing_context or multiprocessing).get_start_method() != 'fork':
            resource_tracker.ensure_running()
            signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # again: starting it unblocks SIGTERM
        return start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _keep_working(begin: Any, owner: int, worker: int) -> None:
    """In a data worker: let only the process that it works for end it."""
    if begin is not None:
        begin(worker)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    # PyTorch's own handler ends a worker whoever asks, and with it the run. Who does, only a blocked signal tells.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})

    def wait() -> None:
        asked = None
        while _is_there(owner) and (asked is None or asked.si_pid != owner):
            asked = signal.sigtimedwait({signal.SIGTERM}, _LOOK)
        os._exit(0)

    threading.Thread(target=wait, daemon=True).start()


def _is_there(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def _checkpoint_hooks(runner: Runner) -> list[SafeCheckpointHook]:
    return [hook for hook in runner.hooks if isinstance(hook, SafeCheckpointHook)]
