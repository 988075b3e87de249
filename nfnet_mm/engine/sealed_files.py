"""Where checkpoints are written: local files, whole or not at all, at once or in the background."""

import os
import threading
import weakref
from collections.abc import Callable
from pathlib import Path

from mmengine.fileio import LocalBackend, register_backend

from nfnet_mm.errors import UserError

from .checkpoint_file import damage, write_sealed
from .sharded_checkpoint import is_sharded_checkpoint, remove

# By their ids, as mmengine makes texts of the arguments of a storage.
_WRITERS: 'weakref.WeakValueDictionary[int, BackgroundWriter]' = weakref.WeakValueDictionary()


class BackgroundWriter:
    """Does what one save consists of, in order, in a thread beside the training; one save at a time.

    If a part fails, those after it are not done, and files that were not there before are removed.
    """

    def __init__(self) -> None:
        _WRITERS[id(self)] = self
        self.tasks: list[Callable[[], None]] = []  # of the save that is being put together
        self.made: list[str] = []
        self.thread: threading.Thread | None = None
        self.failure: str | None = None

    def start(self) -> None:
        """Begin with what was collected in ``tasks``."""
        assert self.thread is None, 'the save before this one is not finished'
        tasks, self.tasks, self.made, self.failure = self.tasks, [], [], None
        # not a daemon: the interpreter waits for it before it ends
        self.thread = threading.Thread(target=self._work, args=(tasks,), name='checkpoint')
        self.thread.start()

    def _work(self, tasks: list[Callable[[], None]]) -> None:
        try:
            for task in tasks:
                task()
        except Exception as error:  # it is told when the training asks
            self.failure = str(error) or type(error).__name__
            for path in self.made:
                Path(path).unlink(missing_ok=True)

    def wait(self) -> str | None:
        """Wait for what was started; why it failed, or None."""
        if self.thread is not None:
            self.thread.join()
            self.thread = None
        return self.failure


class SealedFiles(LocalBackend):
    """Local files; checkpoints are written whole or not at all, and what is removed waits for ``remove_outdated``.

    Args:
        writer: the id of what writes in the background.
    """

    def __init__(self, writer: int | None = None) -> None:
        self.outdated: list[str] = []
        self.writer = None if writer is None else _WRITERS[writer]

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Write a checkpoint, and read it back."""
        path = os.fspath(filepath)

        def write() -> None:
            os.makedirs(os.path.dirname(path) or '.', exist_ok=True)
            if self.writer is not None and not os.path.exists(path):
                self.writer.made.append(path)
            write_sealed(path, obj)
            if what := damage(path):
                raise UserError(f'{path!r} was written, but {what}')

        self.do(write)

    def do(self, task: Callable[[], None]) -> None:
        """Do something after what was put before."""
        task() if self.writer is None else self.writer.tasks.append(task)

    def remove(self, filepath: str | Path) -> None:
        self.outdated.append(os.fspath(filepath))

    def isfile(self, filepath: str | Path) -> bool:
        """Whether there is a checkpoint of this name, which of a sharded run is a folder."""
        return super().isfile(filepath) or is_sharded_checkpoint(filepath)

    def remove_outdated(self) -> None:
        """Remove what was asked to be."""
        outdated, self.outdated = self.outdated, []

        def remove_all() -> None:
            for path in outdated:
                remove(path)

        self.do(remove_all)


register_backend('nfnet_mm.sealed', SealedFiles, force=True)
