"""Save checkpoints so that a kill at any moment, or a full disk, leaves the one before intact."""

import copy
import inspect
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.hooks import CheckpointHook
from mmengine.logging import print_log
from mmengine.runner import Runner

from nfnet_mm.errors import UserError, check_positive, did_you_mean, write_atomically
from nfnet_mm.registry import HOOKS

from .exact_resume import ExactResumeHook
from .fully_shard import FullyShard
from .sealed_files import BackgroundWriter, SealedFiles
from .sharded_checkpoint import remove

# What a failed save is undone in: of the hook, and of the message hub.
_STATE = {'saved_at', 'between', 'last_ckpt', 'keep_ckpt_ids', 'best_ckpt_path', 'best_ckpt_path_dict'}
_INFO = ('last_ckpt', 'keep_ckpt_ids', 'outdated_ckpts', 'ckpt_between', 'best_')


@dataclass
class _Before:
    """How things stood before a save."""

    iteration: int
    info: dict[str, Any]
    own: dict[str, Any]
    outdated: list[str]


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
        background: training stops only while the state is copied to host memory, and goes on while a thread writes,
            flushes, renames and verifies the file. The next checkpoint, the end of the training and a signal wait for
            it, and tell if it failed.

    Raises:
        UserError: so many failed, or the last one of the training; the message says why.
    """

    def __init__(self, *args: Any, max_failures: int = 3, background: bool = False, **kwargs: Any):
        super().__init__(*args, **kwargs)
        if not isinstance(background, bool):
            raise UserError(f'CheckpointHook background={background!r} must be True or False')
        self.writer = BackgroundWriter() if background else None
        self.writing: _Before | None = None  # what the save that the writer is at would be undone to
        self.inside = False  # a save that consists of several
        self.max_failures = check_positive('max_failures', max_failures)
        self.failures = 0
        self.saved_at: int | None = None  # after so many iterations
        self.between: str | None = None  # the file of a run that a signal ended, until the next one is saved

    def before_train(self, runner: Runner) -> None:
        self._check_options(runner)
        # a storage of the user's own (a cluster's) writes as it does
        folder = str(self.out_dir or runner.work_dir)
        if self.backend_args is None and self.file_client_args is None and '://' not in folder:
            self.backend_args: dict | None = dict(backend='nfnet_mm.sealed')
            if self.writer is not None:
                self.backend_args['writer'] = id(self.writer)
        elif self.writer is not None:
            raise UserError('CheckpointHook background=True writes local files, without backend_args')
        if self.writer is not None and isinstance(runner.model, FullyShard):
            raise UserError(
                'CheckpointHook background=True does not go with FullyShard, whose processes write together'
            )
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

    def _check_options(self, runner: Runner) -> None:
        """What mmengine does not know it hands on to the runner, which fails when the first checkpoint is due."""
        takes = inspect.signature(runner.save_checkpoint).parameters
        kinds = (CheckpointHook.__init__, SafeCheckpointHook.__init__)
        known = {name for kind in kinds for name in inspect.signature(kind).parameters} - {'self', 'args', 'kwargs'}
        for name in self.args:
            if name not in takes and not any(one.kind is one.VAR_KEYWORD for one in takes.values()):
                raise UserError(f'CheckpointHook has no option {name!r}.{did_you_mean(name, known)}')

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict[str, Any]) -> None:
        self._all_or_nothing(runner, lambda: self._write(runner, step, meta))

    def _save_best_checkpoint(self, runner: Runner, metrics: dict[str, Any]) -> None:
        if not self.save_best:
            return
        save = super()._save_best_checkpoint
        # mmseg's scores are NumPy's, which the state in the file would hold, and torch does not read as weights alone
        plain = {name: one.item() if isinstance(one, np.generic) else one for name, one in metrics.items()}
        self._all_or_nothing(runner, lambda: save(runner, plain))

    def save_now(self, runner: Runner, done: int) -> None:
        """Save a checkpoint after ``done`` iterations, in the middle of an epoch too, unless that one is saved."""
        self._settle(runner)
        if done != self.saved_at:
            name, meta = f'iter_{done}.pth', dict(epoch=runner.epoch, iter=done)
            runner.message_hub.update_info('ckpt_between', name)
            self._all_or_nothing(runner, lambda: self._write_file(runner, name, meta))
            self._settle(runner)

    def after_train(self, runner: Runner) -> None:
        self._settle(runner)
        if self.failures:
            raise UserError(f'the training is done, but its LAST CHECKPOINT COULD NOT BE SAVED: {self._kept(runner)}')
        super().after_train(runner)

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
            text, pointer = str(self.last_ckpt).encode(), os.path.join(runner.work_dir, 'last_checkpoint')
            self._do(lambda: write_atomically(pointer, lambda file: file.write(text)))

    def _path(self, step: int) -> str:
        return self.file_backend.join_path(self.out_dir, self.filename_tmpl.format(step))

    def _do(self, task: Callable[[], None]) -> None:
        """Do something after the files that were written, when they are."""
        task() if self.writer is None else self.writer.tasks.append(task)

    def _all_or_nothing(self, runner: Runner, save: Callable[[], None]) -> None:
        """Save, then remove what is outdated; if it fails, on the one process that writes, be as before on all."""
        if self.writer is not None and self.inside:
            save()
            return
        self._settle(runner)
        failures, before = self.failures, self._state(runner)
        failure: list[str | None] = [None]
        self.inside = True
        try:
            save()
        except (OSError, UserError) as error:
            failure = [str(error)]
        finally:
            self.inside = False
        broadcast_object_list(failure)
        if failure[0] is not None:
            if self.writer is not None:
                self.writer.tasks = []
            self._undo(runner, before, failure[0])
            return
        if self._state(runner) == before:  # there was no better one
            return
        if isinstance(self.file_backend, SealedFiles):
            self.file_backend.remove_outdated()
        if self.writer is not None:
            self.writing = before
            self.writer.start()
        elif self.failures == failures:  # the last one, saved once more after the best, may have failed
            self.failures = 0

    def _settle(self, runner: Runner) -> None:
        """Wait for what is written in the background; if it failed, be as before."""
        if self.writer is None or self.writing is None:
            return
        failure, before, self.writing = [self.writer.wait()], self.writing, None
        broadcast_object_list(failure)
        if failure[0] is None:
            self.failures = 0
        else:
            self._undo(runner, before, failure[0])

    def _state(self, runner: Runner) -> _Before:
        info = runner.message_hub.runtime_info
        return _Before(
            runner.iter + 1,
            {key: copy.copy(info[key]) for key in info if key.startswith(_INFO)},
            {name: copy.copy(vars(self)[name]) for name in _STATE & vars(self).keys()},
            list(getattr(self.file_backend, 'outdated', ())),
        )

    def _undo(self, runner: Runner, before: _Before, why: str) -> None:
        self.__dict__.update(before.own)
        info = runner.message_hub.runtime_info
        for key in [key for key in info if key.startswith(_INFO)]:
            del info[key]
        info.update(before.info)
        if isinstance(self.file_backend, SealedFiles):
            self.file_backend.outdated = before.outdated
        self.failures += 1
        what = f'NO CHECKPOINT was saved at iteration {before.iteration}: {why}; {self._kept(runner)}'
        if self.failures >= self.max_failures:
            end = f'{self.failures} in a row failed (CheckpointHook max_failures={self.max_failures})'
            raise UserError(f'{what}. The run ends, since {end}: make room and go on with --resume')
        print_log(f'{what}. Training goes on', 'current', logging.ERROR)

    def _kept(self, runner: Runner) -> str:
        last = self.last_ckpt or (runner._load_from if runner._resume else None)
        return f'the last good one is {last!r}' if last else 'there is none yet'


@contextmanager
def finishing_checkpoints(runner: Runner) -> Iterator[None]:
    """If training ends in an error, wait first for what is written in the background, and tell if that fails.

    Of several processes one that has failed ends at once, whatever its threads do.
    """
    try:
        yield
    except BaseException:
        for hook in runner.hooks:
            if not isinstance(hook, SafeCheckpointHook) or hook.writer is None or hook.writing is None:
                continue
            if why := hook.writer.wait():
                what = f'NO CHECKPOINT was saved at iteration {hook.writing.iteration}: {why}'
                print_log(what, 'current', logging.ERROR)
        raise
