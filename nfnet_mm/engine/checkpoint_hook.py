"""Save checkpoints so that a kill at any moment, or a full disk, leaves the one before intact."""

import copy
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.fileio import LocalBackend, register_backend
from mmengine.hooks import CheckpointHook
from mmengine.logging import print_log
from mmengine.runner import Runner

from nfnet_mm.errors import UserError, check_positive, write_atomically
from nfnet_mm.registry import HOOKS

from .checkpoint_file import damage, write_sealed
from .exact_resume import ExactResumeHook
from .sharded_checkpoint import is_sharded_checkpoint, remove


class SealedFiles(LocalBackend):
    """Local files; checkpoints are written whole or not at all, and what is removed waits for ``remove_outdated``."""

    def __init__(self) -> None:
        self.outdated: list[str] = []

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Write a checkpoint, and read it back."""
        os.makedirs(os.path.dirname(filepath) or '.', exist_ok=True)
        write_sealed(filepath, obj)
        if what := damage(filepath):
            raise UserError(f'{os.fspath(filepath)!r} was written, but {what}')

    def remove(self, filepath: str | Path) -> None:
        self.outdated.append(os.fspath(filepath))

    def remove_outdated(self) -> None:
        """Remove what was asked to be."""
        outdated, self.outdated = self.outdated, []
        for path in outdated:
            remove(path)

    def isfile(self, filepath: str | Path) -> bool:
        """Whether there is a checkpoint of this name, which of a sharded run is a folder."""
        return super().isfile(filepath) or is_sharded_checkpoint(filepath)


# What a failed save is undone in, of the hook.
_STATE = {'saved_at', 'between', 'last_ckpt', 'keep_ckpt_ids', 'best_ckpt_path', 'best_ckpt_path_dict'}
register_backend('nfnet_mm.sealed', SealedFiles, force=True)


@HOOKS.register_module()
class SafeCheckpointHook(CheckpointHook):
    """mmengine's hook, whose checkpoints are never half-written and never the last ones to be lost.

    A checkpoint is written to a temporary file, flushed to the disk, renamed and read back before what
    ``max_keep_ckpts`` and ``save_best`` make outdated is removed; mmengine removes first, and a kill while it writes
    leaves a file that cannot be read. ``last_checkpoint`` is written as safely. If one cannot be written (a full disk,
    a read-only folder), training goes on, with an ERROR in the log and the last good checkpoint in its place.

    Args:
        *args, **kwargs: mmengine's.
        max_failures: end the run when so many checkpoints in a row could not be written.

    Raises:
        UserError: so many failed; the message says why.
    """

    def __init__(self, *args: Any, max_failures: int = 3, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.max_failures = check_positive('max_failures', max_failures)
        self.failures = 0
        self.saved_at: int | None = None  # after so many iterations
        self.between: str | None = None  # the file of a run that a signal ended, until the next one is saved

    def before_train(self, runner: Runner) -> None:
        # a storage of the user's own (a cluster's) writes as it does
        folder = str(self.out_dir or runner.work_dir)
        if self.backend_args is None and self.file_client_args is None and '://' not in folder:
            self.backend_args: dict | None = dict(backend='nfnet_mm.sealed')
        super().before_train(runner)
        info = runner.message_hub.runtime_info  # of the checkpoint that is resumed
        self.between, outdated = info.pop('ckpt_between', None), info.pop('outdated_ckpts', ())
        if is_main_process() and isinstance(self.file_backend, SealedFiles):
            ends = {'.pth', Path(self.filename_tmpl).suffix or '.pth'}
            left = [path for end in ends for path in Path(self.out_dir).glob(f'.*{end}.*.tmp')]
            for path in [*left, *Path(runner.work_dir).glob('.last_checkpoint.*.tmp')]:
                remove(path)  # of a kill while it was written
            for name in outdated:  # of one after that
                remove(Path(self.out_dir, name))

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict[str, Any]) -> None:
        self._all_or_nothing(runner, lambda: self._write(runner, step, meta))

    def _save_best_checkpoint(self, runner: Runner, metrics: dict[str, Any]) -> None:
        save = super()._save_best_checkpoint
        # mmseg's scores are NumPy's, which the state in the file would hold, and torch does not read as weights alone
        plain = {name: one.item() if isinstance(one, np.generic) else one for name, one in metrics.items()}
        self._all_or_nothing(runner, lambda: save(runner, plain))

    def save_now(self, runner: Runner, done: int) -> None:
        """Save a checkpoint after ``done`` iterations, in the middle of an epoch too, unless that one is saved."""
        if done != self.saved_at:
            name, meta = f'iter_{done}.pth', dict(epoch=runner.epoch, iter=done)
            runner.message_hub.update_info('ckpt_between', name)
            self._all_or_nothing(runner, lambda: self._write_file(runner, name, meta))

    def _write(self, runner: Runner, step: int, meta: dict[str, Any]) -> None:
        """Write a checkpoint as mmengine does, but for ``last_checkpoint``, which it empties before it writes it."""
        if self.max_keep_ckpts > 0 and step not in self.keep_ckpt_ids:
            old = [self._path(self.keep_ckpt_ids[0])] if len(self.keep_ckpt_ids) == self.max_keep_ckpts else []
            old += [self.file_backend.join_path(self.out_dir, self.between)] if self.between else []
            for path in old if is_main_process() else ():
                if self.file_backend.isfile(path):
                    self.file_backend.remove(path)
            self.between = None
            self.keep_ckpt_ids.append(step)  # a deque of that length
            runner.message_hub.update_info('keep_ckpt_ids', list(self.keep_ckpt_ids))
        self._write_file(runner, self.filename_tmpl.format(step), meta)

    def _write_file(self, runner: Runner, name: str, meta: dict[str, Any]) -> None:
        self.saved_at = meta['iter']
        for hook in runner.hooks:
            if isinstance(hook, ExactResumeHook):
                hook.gather(runner)
        self.last_ckpt = self.file_backend.join_path(self.out_dir, name)
        runner.message_hub.update_info('last_ckpt', self.last_ckpt)
        # for the run that goes on from this checkpoint, if a kill comes before they are removed
        outdated = [os.path.basename(path) for path in getattr(self.file_backend, 'outdated', ())]
        runner.message_hub.update_info('outdated_ckpts', outdated)
        runner.save_checkpoint(
            self.out_dir,
            name,
            self.file_client_args,
            save_optimizer=self.save_optimizer,
            save_param_scheduler=self.save_param_scheduler,
            meta=meta,
            by_epoch=self.by_epoch,
            backend_args=self.backend_args,
            **self.args,
        )
        if is_main_process():
            text = str(self.last_ckpt).encode()
            write_atomically(os.path.join(runner.work_dir, 'last_checkpoint'), lambda file: file.write(text))

    def _path(self, step: int) -> str:
        return self.file_backend.join_path(self.out_dir, self.filename_tmpl.format(step))

    def _all_or_nothing(self, runner: Runner, save: Callable[[], None]) -> None:
        """Save, then remove what is outdated; if it fails, on the one process that writes, be as before on all."""
        info = runner.message_hub.runtime_info
        failures = self.failures
        before, own = dict(info), {name: copy.copy(vars(self)[name]) for name in _STATE & vars(self).keys()}
        outdated = list(getattr(self.file_backend, 'outdated', ()))
        failure: list[str | None] = [None]
        try:
            save()
        except (OSError, UserError) as error:
            failure = [str(error)]
        broadcast_object_list(failure)
        if failure[0] is None:
            if self.failures == failures:  # the last one, saved once more after the best, may have failed
                self.failures = 0
            if isinstance(self.file_backend, SealedFiles):
                self.file_backend.remove_outdated()
            return
        self.__dict__.update(own)
        info.clear()
        info.update(before)
        if isinstance(self.file_backend, SealedFiles):
            self.file_backend.outdated = outdated
        self.failures += 1
        last = self.last_ckpt or (runner._load_from if runner._resume else None)
        kept = f'the last good one is {last!r}' if last else 'there is none yet'
        what = f'NO CHECKPOINT was saved at iteration {runner.iter + 1}: {failure[0]}; {kept}'
        if self.failures >= self.max_failures:
            end = f'{self.failures} in a row failed (CheckpointHook max_failures={self.max_failures})'
            raise UserError(f'{what}. The run ends, since {end}: make room and go on with --resume')
        print_log(f'{what}. Training goes on', 'current', logging.ERROR)
