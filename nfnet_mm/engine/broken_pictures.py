"""Pictures that cannot be read: skipped in training, named in a test."""

import functools
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from mmengine.fileio import get
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import Runner

from nfnet_mm.errors import UserError, is_integer
from nfnet_mm.pack import PREFIX
from nfnet_mm.registry import HOOKS


@HOOKS.register_module()
class BrokenPicturesHook(Hook):
    """Go on without pictures that are missing, empty, cut off or no pictures, up to a limit.

    In training another one is drawn in its place, as mmengine's data sets do where a pipeline yields nothing; each is
    logged with its path, once, and listed in ``broken_pictures.txt`` of the work folder. In validation and test, whose
    score would be another without it, the first one ends the run; one that is cut off is only warned of, as decoders
    make a picture of it. This holds for pictures that a pipeline of the data set loads with ``LoadImageFromFile`` from
    local files or a pack.

    Args:
        limit: end the run when more of them than this were found, in whatever process.

    Raises:
        UserError: there are more, or one is to be scored; the message names it.
    """

    def __init__(self, limit: int = 100) -> None:
        if not is_integer(limit) or limit < 0:
            raise UserError(f'BrokenPicturesHook limit={limit!r} must be a whole number from 0 up')
        self.limit = limit

    def before_train(self, runner: Runner) -> None:
        self._watch(runner.train_dataloader.dataset, runner)

    def before_val(self, runner: Runner) -> None:
        self._watch(runner.val_dataloader.dataset, runner)

    def before_test(self, runner: Runner) -> None:
        self._watch(runner.test_dataloader.dataset, runner)

    def _watch(self, dataset: Any, runner: Runner) -> None:
        found = Path(runner.work_dir, 'broken_pictures.txt')
        for one in _datasets(dataset):
            draws_another = hasattr(one, 'max_refetch') and not getattr(one, 'test_mode', False)
            for step in getattr(getattr(one, 'pipeline', None), 'transforms', ()):
                if any(kind.__name__ == 'LoadImageFromFile' for kind in type(step).__mro__):
                    limit = self.limit if draws_another else None
                    step.transform = functools.partial(_load, step, found, limit)


def _datasets(dataset: Any) -> Iterator[Any]:
    """A data set and those that it is made of."""
    yield dataset
    for inner in (*getattr(dataset, 'datasets', ()), getattr(dataset, 'dataset', None)):
        if inner is not None:
            yield from _datasets(inner)


def _load(step: Any, found: Path, limit: int | None, results: dict) -> dict | None:
    """What a loading step does; None if the picture cannot be read, and there may be such ones."""
    path = str(results.get('img_path'))
    try:
        loaded = type(step).transform(step, results)
        if not _is_cut(path):
            return loaded
        why: str | None = 'it is cut off: a JPEG without its end'
        if limit is None:  # what is scored is what others score
            print_log(f'picture {path!r} is scored as it is, but {why}', 'current', logging.WARNING)
            return loaded
    except Exception as error:  # which one depends on the decoder; one that is not the file's fault goes on
        why = _unreadable(path) or (str(error) if isinstance(error, OSError) else None)
        if why is None:
            raise
        if limit is None:
            raise UserError(f'picture {path!r} cannot be read: {why}') from None
    known = found.read_text().splitlines() if found.exists() else []
    if path not in known:
        if len(known) >= limit:
            more = f'more than BrokenPicturesHook limit={limit} pictures cannot be read; those before are in {found}'
            raise UserError(f'picture {path!r} cannot be read: {why}. It is one too many: {more}')
        with found.open('a') as file:
            file.write(f'{path}\n')
        what = f'picture {path!r} is skipped, it cannot be read: {why} ({len(known) + 1} so far)'
        print_log(what, 'current', logging.WARNING)
    return None


def _is_cut(path: str) -> bool:
    """Whether a local file is a JPEG that ends before its picture does, of which decoders make a grey rest."""
    if '://' in path or not os.path.isfile(path):
        return False
    with open(path, 'rb') as file:
        if file.read(2) != b'\xff\xd8':
            return False
        file.seek(max(os.path.getsize(path) - 32, 0))
        if b'\xff\xd9' in file.read():
            return False
        file.seek(0)
        content = file.read()
    at = 2
    while content[at : at + 1] == b'\xff' and content[at + 1 : at + 2] != b'\xda':  # segments before the picture
        at += 2 + int.from_bytes(content[at + 2 : at + 4], 'big')  # one of them may hold a smaller picture
    return content.find(b'\xff\xd9', at) < 0


def _unreadable(path: str) -> str | None:
    """Why a file, local or in a pack, is no picture; None if it is one, or elsewhere."""
    if '://' in path and not path.startswith(f'{PREFIX}://'):
        return None
    try:
        content = get(path)
    except OSError as error:
        return os.strerror(error.errno) if error.errno else str(error)
    if not content:
        return 'the file is empty'
    image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    return 'it is cut off, or no picture' if image is None else None
