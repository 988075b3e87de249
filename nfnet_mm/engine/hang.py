"""End a run of several processes when one of them hangs, and say which, and where."""

import json
import os
import socket
import sys
import sysconfig
import threading
import time
from contextlib import suppress
from datetime import timedelta
from types import FrameType
from typing import Any

from mmengine.dist import get_rank, get_world_size
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import distributed

from nfnet_mm.errors import check_number
from nfnet_mm.registry import HOOKS

EXIT_STATUS = 70  # sysexits.h: an internal software error

# Where a process is that waits for the others, or for its device, which does: in a collective, in the backward pass,
# whose end is one, or where a number is read from the device.
_WAITING = (
    '/torch/distributed/',
    '/torch/autograd/',
    '/mmengine/dist/',
    '/mmengine/logging/message_hub.py',
    '/nfnet_mm/engine/optim_wrapper.py',
    '/nfnet_mm/engine/amp_optim_wrapper.py',
    '/nfnet_mm/engine/finite.py',
    '/nfnet_mm/engine/signals.py',
)
_STANDARD = sysconfig.get_paths()['stdlib']


@HOOKS.register_module()
class HangHook(Hook):
    """End a run with exit status 70 if it makes no progress for so long, in a line that names the process that hangs.

    Every process notes its progress (a batch that has come, an iteration or a validation batch that is done) and a
    thread of it, a few times a timeout, writes to the store that the processes met at how long ago that was and which
    line it is at. Steps wait for nothing. After the timeout the threads read what the others wrote: the one that hangs
    is the one that writes no more, or that is not waiting for others. The time in which a finished validation's metrics
    are computed does not count.

    Args:
        timeout: seconds without progress; None: no watch, as while a run is stopped in a debugger. Longer than the
            longest legitimate pause: a checkpoint on a slow disk, a first step that is compiled. The default is what
            NCCL's operations wait before they end a run without a name, less a margin.
    """

    priority = 'VERY_HIGH'

    def __init__(self, timeout: float | None = 540):
        if timeout is not None:
            check_number('HangHook timeout', timeout, '(0, inf)', ', in seconds, or None')
        self.timeout = timeout
        self.watch: _Watch | None = None

    def before_train(self, runner: Runner) -> None:
        if self.timeout is not None and get_world_size() > 1 and distributed.is_initialized():
            self.watch = _Watch(self.timeout)
            self.watch.note(runner.iter)
            self.watch.start()

    def after_train(self, runner: Runner) -> None:
        if self.watch is not None:
            self.watch.ended.set()
            self.watch = None

    def _note(self, runner: Runner) -> None:
        if self.watch is not None:
            self.watch.note(runner.iter)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        self._note(runner)

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        self._note(runner)

    def after_val_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        self._note(runner)
        if self.watch is not None and batch_idx + 1 >= len(runner.val_dataloader):
            self.watch.since = None

    def after_val_epoch(self, runner: Runner, metrics: Any = None) -> None:
        self._note(runner)


class _Watch(threading.Thread):
    """What a process tells the others, and what it does if there is nothing to tell."""

    def __init__(self, timeout: float):
        super().__init__(name='nfnet_mm.hang', daemon=True)
        self.timeout, self.interval = timeout, min(timeout / 10, 15)
        self.rank, self.world = get_rank(), get_world_size()
        self.main = threading.get_ident()
        self.ended = threading.Event()
        self.done, self.beat = 0, 0
        self.since: float | None = time.monotonic()  # None: it is not to be watched now
        self.store: Any = None

    def note(self, done: int) -> None:
        """Progress, after so many iterations."""
        self.done, self.since = done, time.monotonic()

    def stuck(self) -> float:
        """Seconds since the last progress."""
        return 0.0 if self.since is None else time.monotonic() - self.since

    def run(self) -> None:
        talk = threading.Thread(target=self._talk, name='nfnet_mm.hang.talk', daemon=True)
        talk.start()
        while not self.ended.wait(self.interval):
            # the talk would have ended the process by now, had the store answered
            if self.stuck() > self.timeout + 10 * self.interval + 10:
                end(f'no progress for {self.stuck():.0f} s after iteration {self.done}, and the process that keeps '
                    "the run's store (of rank 0, or its launcher) does not answer")  # fmt: skip

    def _talk(self) -> None:
        try:
            self.store = _connect(self.interval)
            while not self.ended.wait(self.interval):
                self._tell()
                if self.stuck() > self.timeout:
                    self._judge()
        except RuntimeError:  # the store is gone: the launcher is ending the run, or the other thread does
            return

    def _tell(self) -> None:
        frame = sys._current_frames().get(self.main)
        self.beat += 1
        told = dict(beat=self.beat, done=self.done, stuck=self.stuck(), at=where(frame), waits=waits(frame))
        self.store.set(f'nfnet_mm/hang/{self.rank}', json.dumps({**told, **_who()}))

    def _read(self) -> dict[int, dict[str, Any]]:
        told = {}
        for rank in range(self.world):
            key = f'nfnet_mm/hang/{rank}'
            if hasattr(self.store, 'check'):
                if self.store.check([key]):
                    told[rank] = json.loads(self.store.get(key))
                continue
            with suppress(RuntimeError):  # older versions of torch wait for what is not there
                told[rank] = json.loads(self.store.get(key))
        return told

    def _judge(self) -> None:
        """End the process if the run hangs: the first that waits says what does."""
        before, begun = self._read(), self.since
        for _ in range(3):
            if self.ended.wait(self.interval):
                return
            self._tell()
        if self.since != begun:
            return
        told = self._read()
        silent = [r for r in range(self.world) if r not in told or told[r]['beat'] == before.get(r, {}).get('beat')]
        if any(told[r]['stuck'] < self.timeout / 2 for r in told if r not in silent):
            return  # that one is late, and goes on
        hung = silent or [rank for rank, one in told.items() if not one['waits']] or list(range(self.world))
        speaker = min((rank for rank in told if rank not in hung), default=min(hung))
        if self.rank != speaker:
            time.sleep(1)  # for that one to speak before the launcher ends it
            end()
        what = '; '.join(_said(rank, told.get(rank), rank in silent) for rank in hung[:8])
        more = f' and {len(hung) - 8} more' if len(hung) > 8 else ''
        end(f'the run makes no progress, since {what}{more}')


def _said(rank: int, told: dict[str, Any] | None, silent: bool) -> str:
    if told is None:
        return f'process {rank} has not begun to train'
    name = f'process {rank} ({told["host"]}, pid {told["pid"]})'
    if silent:
        return f'{name} gives no sign of life after iteration {told["done"]}: it is stopped, or its machine is gone'
    return f'{name} has been at {told["at"]} for {told["stuck"]:.0f} s, after iteration {told["done"]}'


def _who() -> dict[str, Any]:
    return dict(host=socket.gethostname(), pid=os.getpid())


def end(line: str | None = None) -> None:
    """End this process at once, whatever its main thread does."""
    if line:
        goes_on = f'--resume goes on from the last checkpoint (exit status {EXIT_STATUS})'
        print(f'error: {line}; {goes_on}', file=sys.stderr, flush=True)
    os._exit(EXIT_STATUS)


def _place(frame: FrameType | None) -> FrameType | None:
    """The innermost frame that is not of the standard library."""
    while frame is not None and frame.f_code.co_filename.startswith((_STANDARD, '<')):
        if '/site-packages/' in frame.f_code.co_filename:
            break
        frame = frame.f_back
    return frame


def where(frame: FrameType | None) -> str:
    """``file:line (function)``."""
    frame = _place(frame)
    return 'the end' if frame is None else f'{frame.f_code.co_filename}:{frame.f_lineno} ({frame.f_code.co_name})'


def waits(frame: FrameType | None) -> bool:
    """Whether a process whose main thread is there waits for others."""
    frame = _place(frame)
    return frame is not None and any(part in frame.f_code.co_filename for part in _WAITING)


def _connect(timeout: float) -> Any:
    """A connection of one's own to the store of the process group, on which nobody waits."""
    store: Any = distributed.distributed_c10d._get_default_store()
    while hasattr(store, 'underlying_store'):
        store = store.underlying_store
    if isinstance(store, distributed.TCPStore):
        patience = timedelta(seconds=max(timeout, 10))
        return distributed.TCPStore(store.host, store.port, is_master=False, timeout=patience, wait_for_workers=False)
    return store
