"""Say in one line what ended a data worker, or keeps it from answering: the item, its file and the cause."""

import os
import re
import shutil
import signal
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from nfnet_mm.errors import UserError, check_number, short
from nfnet_mm.registry import HOOKS

from .seeded_items import derived, plain_index

TRACEBACKS = 'data_errors.txt'
_PID = re.compile(r'DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\)')
_BY = re.compile(r'is killed by signal: ([^.]+)\.|exited unexpectedly with exit code (-?\d+)')
_TIMED_OUT = re.compile(r'DataLoader timed out after ([\d.]+) seconds')
_OUT_OF_MEMORY = 'as the kernel does when memory runs out (dmesg says): lower num_workers or the batch size'


@HOOKS.register_module()
class DataWorkersHook(Hook):
    """Note what each data worker is loading, and end a run in one line that names it if loading fails.

    That is for an exception of the data set or a transform, whose traceback is kept in ``data_errors.txt`` of the work
    folder; for a worker that is killed or exits; and for one that does not answer.

    Args:
        timeout: seconds to wait for a batch; 0 waits for ever. A ``timeout`` of the data loader's own goes before it.
    """

    priority = 'VERY_HIGH'  # before seeds are given to what is watched

    def __init__(self, timeout: float = 600) -> None:
        self.timeout = check_number('DataWorkersHook timeout', timeout, '[0, inf)', ', in seconds; 0 waits for ever')
        self.loaders: list[DataLoader] = []

    def before_train(self, runner: Runner) -> None:
        self._watch(runner.train_dataloader, runner)

    def before_val(self, runner: Runner) -> None:
        self._watch(runner.val_dataloader, runner)

    def before_test(self, runner: Runner) -> None:
        self._watch(runner.test_dataloader, runner)

    def _watch(self, loader: DataLoader, runner: Runner) -> None:
        if any(loader is one for one in self.loaders):
            return
        self.loaders.append(loader)
        if loader.num_workers and not loader.timeout:
            loader.timeout = self.timeout
        dataset: Any = loader.dataset
        if isinstance(dataset, IterableDataset) or hasattr(dataset, 'loading'):
            return
        try:
            dataset.__class__ = derived(_watched, type(dataset))  # type: ignore[arg-type]
        except TypeError:  # of a built-in type, or one with __slots__
            return
        # of each worker: its process, the item, since when
        dataset.loading = torch.zeros(loader.num_workers, 3, dtype=torch.float64)
        if loader.num_workers:
            with suppress(RuntimeError):  # without shared memory there is only less to tell
                dataset.loading.share_memory_()
        dataset.tracebacks = os.path.join(runner.work_dir, TRACEBACKS)


def _watched(kind: Any) -> dict[str, Any]:
    def watch(self: Any, index: Any, load: Any) -> Any:
        worker = get_worker_info()
        row = self.loading[worker.id] if worker is not None else None
        if row is not None:
            number = plain_index(index)
            row[:] = torch.tensor([os.getpid(), number if isinstance(number, int) else -1, time.time()])
        try:
            return load(self, index)
        except (UserError, MemoryError):
            raise
        except Exception as error:
            _tell(self, index, error)
        finally:
            if row is not None:
                row[2] = 0

    def __getitem__(self: Any, index: Any) -> Any:
        return watch(self, index, kind.__getitem__)

    def __getitems__(self: Any, indices: Any) -> Any:
        return watch(self, indices, kind.__getitems__)

    at_once = dict(__getitems__=__getitems__) if getattr(kind, '__getitems__', None) else {}
    return dict(__getitem__=__getitem__, **at_once)


def _tell(dataset: Any, index: Any, error: Exception) -> NoReturn:
    """Turn an exception of loading an item into one line."""
    path, frame = None, error.__traceback__
    while frame is not None:  # the innermost that has it
        for value in frame.tb_frame.f_locals.values():
            if isinstance(value, dict) and isinstance(value.get('img_path'), str):
                path = value['img_path']
        frame = frame.tb_next
    where = traceback.extract_tb(error.__traceback__)[-1]
    file = f' ({path})' if path else ''
    line = f'{os.path.basename(where.filename)}:{where.lineno}'
    what = (
        f'{_item(dataset, plain_index(index))}{file} cannot be loaded: {type(error).__name__}: {short(error)} ({line})'
    )
    try:
        with open(dataset.tracebacks, 'a') as log:
            log.write(f'{what}\n{"".join(traceback.format_exception(error))}\n')
        what += f'; the traceback is in {dataset.tracebacks}'
    except OSError:
        traceback.print_exception(error)
    said = UserError(what)
    said.of_one_process = True
    raise said from None


def _item(dataset: Any, index: Any) -> str:
    kind = type(dataset).__name__
    return f'item {index} of {kind}' if not isinstance(index, list) else f'an item of {short(index)} of {kind}'


@contextmanager
def telling_of_workers(runner: Runner) -> Iterator[None]:
    """Make one line of what PyTorch raises inside on a data worker that has died or does not answer.

    Raises:
        UserError: one did; the message names the item, its file, and the cause as far as it is known.
    """
    try:
        yield
    except (RuntimeError, OSError, EOFError) as error:  # also a connection to a worker that broke off
        main = threading.current_thread() is threading.main_thread()
        # PyTorch's handler raises again, wherever the program is, whenever another child of the process ends
        handler = signal.signal(signal.SIGCHLD, signal.SIG_DFL) if main else None
        hooks = [hook for hook in runner.hooks if isinstance(hook, DataWorkersHook)]
        datasets = [loader.dataset for hook in hooks for loader in hook.loaders]
        what = _what_happened(str(error), datasets, _exit_codes(error))
        if what is None:
            if main:
                signal.signal(signal.SIGCHLD, handler)
            raise
        said = UserError(what)
        said.of_one_process = True
        raise said from error


def _exit_codes(error: BaseException) -> dict[int, int]:
    """Of the workers of the loader that failed, by process; those that are about to end are waited for a little."""
    workers: list[Any] = []
    frame = error.__traceback__
    while frame is not None:
        workers = getattr(frame.tb_frame.f_locals.get('self'), '_workers', workers)
        frame = frame.tb_next
    until = time.time() + 5
    while workers and isinstance(error, (ConnectionError, EOFError)) and time.time() < until:
        if any(one.exitcode for one in workers):
            break
        time.sleep(0.1)
    return {one.pid: one.exitcode for one in workers if one.exitcode}


def _what_happened(text: str, datasets: list[Any], codes: dict[int, int] | None = None) -> str | None:
    if found := _TIMED_OUT.search(text):
        items = sorted(one for dataset in datasets for one in _loading(dataset))
        at = f' at {items[0][1]}' if items else ''  # the one that was begun first
        how = 'DataWorkersHook timeout, or timeout of the data loader, is how long is waited'
        return f'no batch came from the data workers for {float(found[1]):g} seconds: they hang{at} ({how})'
    pids = _PID.search(text)
    if pids is None and not codes:
        return None
    processes = {int(pid) for pid in pids[1].split(',')} if pids else set(codes or ())
    by = _BY.search(text)
    name, status = (by[1], by[2]) if by else (None, None)
    for code in (codes or {}).values() if by is None else ():
        name, status = (signal.strsignal(-code), None) if code < 0 else (None, str(code))
    cause = (
        f'was killed by signal: {name.strip()}' if name else f'exited with status {status}' if status else 'has ended'
    )
    if name == 'Killed':
        cause += f', {_OUT_OF_MEMORY}'
    if name == 'Bus error':
        cause += f'; {_shared_memory()}'
    items = [one for dataset in datasets for one in _loading(dataset, processes)]
    return f'a data worker {cause}. It was loading {items[0][1]}' if items else f'a data worker {cause}'


def _loading(dataset: Any, processes: set[int] | None = None) -> Iterator[tuple[float, str]]:
    """(since when, what) all workers are loading, or these processes."""
    for pid, index, begun in getattr(dataset, 'loading', torch.zeros(0, 3)).tolist():
        if begun and (processes is None or int(pid) in processes):
            path = None
            with suppress(Exception):  # of a data set of another kind
                path = dataset.get_data_info(int(index)).get('img_path')
            yield begun, f'{_item(dataset, int(index))}{f" ({path})" if path else ""}'


def _shared_memory() -> str:
    shared = Path('/dev/shm')
    if not shared.is_dir():
        return 'there is no /dev/shm'
    free = shutil.disk_usage(shared).free / 1e9
    how = 'start the container with --shm-size=8g or --ipc=host, or lower num_workers'
    return f'/dev/shm, by which workers hand over batches, has {free:.2f} GB free: {how}'
