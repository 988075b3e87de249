"""Read checkpoints without running anything that a file may hold.

A ``.pth`` file is a pickle, which can name any function to be called while it is read. mmengine reads a file the safe
way first, and, where that refuses, the other way. Here the refusal stands, for everything that a process loads: a run's
checkpoint, ``load_from``, an ``init_cfg``, a file from a URL.
"""

import argparse
import collections
import datetime
import io
import logging
import os
import pickle
import re
import sys
import types
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from mmengine.config import ConfigDict
from mmengine.hooks import Hook
from mmengine.logging import HistoryBuffer, print_log
from mmengine.optim.scheduler.param_scheduler import OneCycleParamScheduler
from mmengine.runner import CheckpointLoader, Runner
from mmengine.runner import checkpoint as mmengine_checkpoint

from nfnet_mm.converters.formats.older_torch import FORCE, HAS_ALLOW_LIST, Restricted, forced_safe_loading_lifted
from nfnet_mm.converters.hub import local_file
from nfnet_mm.engine.checkpoint_file import damage
from nfnet_mm.engine.sharded_checkpoint import is_sharded_checkpoint, read_whole
from nfnet_mm.errors import UserError, check_exists, short

HATCH = '--trust-checkpoint loads it all the same; a checkpoint can do whatever you can, so only if you know its maker'

_REFUSED = re.compile(r'GLOBAL (\S+)|unrecognized function (\S+)|unsupported class (\S+)')

# The methods that objects in mmengine's checkpoints refer to, for which pickles ask for ``getattr``.
_METHODS = {
    HistoryBuffer: ('mean', 'min', 'max', 'current'),
    OneCycleParamScheduler: ('_annealing_cos', '_annealing_linear'),
}

_VALUES: tuple[type, ...] = (
    *(set, frozenset, list, dict, tuple, int, float, str, range, collections.Counter),
    *(argparse.Namespace, types.SimpleNamespace, ConfigDict),
    *(datetime.datetime, datetime.date, datetime.time, datetime.timedelta, datetime.timezone),
    torch.torch_version.TorchVersion,
)


def _path(*parts: Any) -> str:
    return '/'.join(map(str, parts)).replace('//', '/')


def _dict(*args: Any) -> dict:
    return {}


def _list(items: Any = (), *args: Any) -> list:
    return list(items)


def _method(kind: Any, name: Any) -> Any:
    """``getattr`` for these."""
    if not isinstance(kind, type) or name not in _METHODS.get(kind, ()):
        raise pickle.UnpicklingError(f'GLOBAL builtins.getattr of {short(name)}')
    return getattr(kind, name)


def _allowed() -> dict[str, Any]:
    """What mmengine and other training codes store beside weights, by the names that pickles call it.

    These are containers and values, whose making runs nothing else. Paths, which are of other classes on another
    system, are read as their texts, and a few containers as plain ones.
    """
    multiarray = sys.modules[np.ndarray.__reduce__(np.zeros(1))[0].__module__]  # numpy.core's or numpy._core's
    known: dict[str, Any] = {
        'builtins.getattr': _method,
        'builtins.slice': slice,
        'numpy.dtype': np.dtype,
        'numpy.ndarray': np.ndarray,
    }
    for core in ('numpy.core', 'numpy._core'):
        known[f'{core}.multiarray.scalar'] = multiarray.scalar  # type: ignore[attr-defined]
        known[f'{core}.multiarray._reconstruct'] = multiarray._reconstruct  # type: ignore[attr-defined]
    numbers = {type(np.dtype(code)) for code in '?bBhHiIlLqQefdFDUS'}
    kinds: list[type] = [*_METHODS, *_VALUES, *numbers]
    known |= {'collections.defaultdict': _dict, 'collections.deque': _list}  # which PyTorch's reader would not fill
    for name in ('PosixPath', 'WindowsPath', 'PurePosixPath', 'PureWindowsPath'):
        known[f'pathlib.{name}'] = known[f'pathlib._local.{name}'] = _path
    return known | {f'{kind.__module__}.{kind.__qualname__}': kind for kind in kinds}


def read_checkpoint(path: str | os.PathLike, map_location: Any = None) -> Any:
    """What a checkpoint file holds, read without running anything in it.

    Args:
        path: a file that ``torch.save`` wrote, or the folder of a sharded run.
        map_location: as of ``torch.load``.

    Raises:
        UserError: there is no such file, it is cut off or broken, or holds what could run code; the message names it.
    """
    path = os.path.expanduser(os.fspath(path))
    sharded = is_sharded_checkpoint(path)
    if not sharded:
        check_exists(path, 'checkpoint')
    if what := damage(path):
        raise UserError(f'checkpoint {path!r} is not whole: {what}')
    if sharded:
        return read_whole(path, lambda state: read_checkpoint(state, map_location))
    try:
        return _load(path, map_location)
    except MemoryError:
        raise
    except Exception as error:  # PyTorch raises nearly any kind on a broken or hostile file
        text = str(error)
        if refused := _REFUSED.search(text):
            name = short(next(filter(None, refused.groups())))
            why = f'it asks for {name}, which could run code and which no checkpoint of mmengine needs'
            raise UserError(f'checkpoint {path!r} is refused: {why}. {HATCH}') from None
        reason = re.search(r'WeightsUnpickler error:\s*(.*)', text)
        what = short(reason[1] if reason else f'{type(error).__name__}: {text}')
        raise UserError(f'checkpoint {path!r} cannot be read: {what}') from None


def _load(file: Any, map_location: Any = None) -> Any:
    """``torch.load`` of a path or an open file, with the allow-list."""
    if not HAS_ALLOW_LIST:
        with forced_safe_loading_lifted():
            return torch.load(file, map_location=map_location, pickle_module=Restricted(_allowed()))
    with torch.serialization.safe_globals(_marked()):
        return torch.load(file, map_location=map_location, weights_only=True)


class SafeSaveHook(Hook):
    """Tell when a checkpoint is saved, and not only when it is loaded, that something in it will be refused.

    What hooks of the user's own put into a checkpoint, or into the message hub, may be of any type.
    """

    priority = 'LOWEST'  # after the others have put in theirs

    def __init__(self) -> None:
        self.told: set[str] = set()

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        for key, value in checkpoint.items():
            for place, part in _parts(key, value):
                name = _refused(part)
                if name and place not in self.told:
                    self.told.add(place)
                    what = f'{place} of the checkpoint holds {name}, which is not read back: --resume will REFUSE IT'
                    how = 'let the hook that stores it store numbers, texts, lists and tensors'
                    print_log(f'{what} without --trust-checkpoint; {how}', 'current', logging.ERROR)


def _parts(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    """What is looked at by itself: the entries of the message hub, and the others."""
    if key == 'message_hub' and isinstance(value, dict):
        for group, entries in value.items():
            for name, one in entries.items() if isinstance(entries, dict) else ((None, entries),):
                yield f'message_hub {group}.{name}', one
    else:
        yield key, value


def _refused(value: Any) -> str | None:
    """The name of what in a value the safe reader refuses; None if it reads it."""
    content = io.BytesIO()
    try:
        torch.save(_without_tensors(value), content)
        content.seek(0)
        _load(content)
    except MemoryError:
        raise
    except Exception as error:
        found = _REFUSED.search(str(error))
        return short(next(filter(None, found.groups()))) if found else short(error)
    return None


def _without_tensors(value: Any) -> Any:
    """The same with small values in the place of tensors and numbers' arrays, of which there may be gigabytes."""
    if isinstance(value, torch.Tensor):
        return None
    if type(value) is np.ndarray and value.dtype != object:
        return None
    if isinstance(value, HistoryBuffer):
        return None
    if type(value) in (dict, OrderedDict):
        return {key: _without_tensors(one) for key, one in value.items()}
    return type(value)(map(_without_tensors, value)) if type(value) in (list, tuple) else value


def _marked() -> list[Any]:
    """The allow-list as PyTorch takes it: an object under its own name, or, named by another, one that calls it."""
    return [_named(path, one) for path, one in _allowed().items()]


def _named(path: str, one: Any) -> Any:
    module, _, name = path.rpartition('.')
    if isinstance(one, type):
        return one

    def call(*args: Any) -> Any:
        return one(*args)

    call.__module__, call.__name__, call.__qualname__ = module, name, name
    return call


def use_safe_loading(trust: bool = False) -> None:
    """Let nothing in this process, or in its data workers, load a checkpoint that could run code.

    Args:
        trust: leave loading as mmengine does it, with a warning.
    """
    if trust:
        what = 'what a checkpoint asks for is RUN when it is loaded (--trust-checkpoint)'
        return print_log(what, 'current', logging.WARNING)
    os.environ[FORCE] = '1'
    CheckpointLoader.register_scheme('', read_checkpoint, force=True)
    CheckpointLoader.register_scheme(('http://', 'https://'), _read_address, force=True)
    # by which mmengine reads what names such as torchvision://, open-mmlab:// and mmcls:// stand for
    vars(mmengine_checkpoint)['load_from_http'] = _read_address
    return None


def _read_address(url: str, map_location: Any = None, *_: Any, **__: Any) -> Any:
    return read_checkpoint(local_file(url, 'checkpoint'), map_location)
