"""Checkpoints of sharded runs: a folder that the processes write together, each its part.

``state.pth`` holds what is no tensor of the weights, their average or the optimizer's state; those are in the files of
PyTorch's distributed checkpoint, which any number of processes, or one, can read. ``seal.json`` has the digests of all
of them and is written last, into a temporary folder that then gets the checkpoint's name: a folder of that name is
whole.

PyTorch's index of the files, ``.metadata``, is a pickle. It is read with an allow-list, so that nothing in it can run.
"""

import hashlib
import json
import os
import pickle
import shutil
import tempfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import all_gather_object, get_rank, is_main_process
from torch import Tensor

from nfnet_mm.errors import UserError, short, write_atomically

from .sharded import is_sharded

SEAL = 'seal.json'
STATE = 'state.pth'
_CHUNK = 1 << 22
_SPREAD = (('state_dict',), ('ema_state_dict',), ('optimizer', 'state'))  # where tensors are taken out of a checkpoint


def is_sharded_checkpoint(path: str | os.PathLike) -> bool:
    """Whether a path is a folder that such a run wrote."""
    return os.path.isfile(os.path.join(path, SEAL))


def folder_damage(folder: str | os.PathLike) -> str | None:
    """Why such a folder is not whole; None if it is."""
    try:
        sealed = json.loads(Path(folder, SEAL).read_text())
        for name, digest in sealed.items():
            if _digest(Path(folder, name)) != digest:
                return f'its part {name!r} was changed after it was written'
    except FileNotFoundError as error:
        return f'its part {os.path.basename(str(error.filename))!r} is missing'
    except OSError as error:
        return str(error.strerror or error)
    except (ValueError, AttributeError):
        return f'its part {SEAL!r} is broken'
    return None


def _digest(path: Path) -> str:
    found = hashlib.sha256()
    with open(path, 'rb') as file:
        while chunk := file.read(_CHUNK):
            found.update(chunk)
    return found.hexdigest()


def take_tensors(checkpoint: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """(a checkpoint without the tensors that are spread, and with the way to each; these by a name for each)."""
    tensors: dict[str, Tensor] = {}
    ways: dict[str, tuple] = {}

    def without(value: Any, way: tuple) -> Any:
        inside = any(way[: len(root)] == root for root in _SPREAD)
        if inside and isinstance(value, Tensor):
            name = '/'.join(map(str, way))
            tensors[name], ways[name] = value.detach(), way
            return None
        if isinstance(value, Mapping) and (inside or any(root[: len(way)] == way for root in _SPREAD)):
            left = {key: without(one, (*way, key)) for key, one in value.items()}
            # what is a tensor is put back in the order of the ways
            return {key: one for key, one in left.items() if not isinstance(value[key], Tensor) or not inside}
        return value

    rest = without(checkpoint, ())
    # of the versions of modules, which PyTorch keeps in an attribute
    rest['versions'] = {root: getattr(checkpoint[root], '_metadata', None) for root, *_ in _SPREAD if root in rest}
    rest['ways'] = ways
    return rest, tensors


def put_back(rest: dict[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """The inverse of :func:`take_tensors`, but for tensors that are left out."""
    checkpoint = dict(rest)
    ways, versions = checkpoint.pop('ways'), checkpoint.pop('versions')
    for root, version in versions.items():
        if version is not None:
            checkpoint[root] = OrderedDict(checkpoint[root])
            checkpoint[root]._metadata = version
    for name, way in ways.items():
        if name in tensors:
            inner = checkpoint
            for key in way[:-1]:
                inner = inner.setdefault(key, {})
            inner[way[-1]] = tensors[name]
    return checkpoint


def write_folder(path: str | os.PathLike, checkpoint: Mapping[str, Any]) -> None:
    """Write a checkpoint, on all processes together; the folder is there whole or not at all.

    Args:
        path: of the folder; what is there is replaced.
        checkpoint: of each process: the same, but for the parts of its DTensors.

    Raises:
        UserError: on all processes, if one of them could not write.
    """
    from torch.distributed import checkpoint as dcp

    target = Path(path)
    rest, tensors = take_tensors(checkpoint)
    mine = {name: one for name, one in tensors.items() if is_sharded(one) or is_main_process()}
    temporary = Path(_together(target, lambda: _make_temporary(target) if is_main_process() else None)[0])
    try:
        planner = dcp.DefaultSavePlanner(flatten_state_dict=False, flatten_sharded_tensors=False)
        writer = dcp.FileSystemWriter(temporary, single_file_per_rank=True, sync_files=True)
        _together(target, lambda: dcp.save(mine, storage_writer=writer, planner=planner))
        _together(target, lambda: _save(temporary / STATE, rest) if is_main_process() else None)
        digests = _together(target, lambda: _digests_of_mine(temporary))
        if is_main_process():
            sealed = {name: digest for one in digests for name, digest in one.items()}
            text = json.dumps(sealed, indent=1).encode()
        _together(target, lambda: _publish(temporary, target, text) if is_main_process() else None)
    finally:
        if is_main_process():
            shutil.rmtree(temporary, ignore_errors=True)


def _together(target: Path, act: Callable[[], Any]) -> list[Any]:
    """What each process returns; if one fails, all do."""
    answer: tuple[Any, str | None] = None, None
    try:
        answer = act(), None
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # whatever it is, the others wait for this process; PyTorch's own is no Exception
        # of PyTorch's there is one of each process that failed
        rank, one = next(iter(getattr(error, 'failures', {get_rank(): error}).items()))
        one = one[0] if isinstance(one, tuple) else one
        answer = None, f'process {rank}: {getattr(one, "strerror", None) or str(one) or type(one).__name__}'
    answers = all_gather_object(answer)
    failures = [why for _, why in answers if why]
    if failures:
        raise UserError(f'{os.fspath(target)!r} was not written: {short(failures[0])}')
    return [value for value, _ in answers]


def _make_temporary(target: Path) -> str:
    target.parent.mkdir(parents=True, exist_ok=True)
    folder = tempfile.mkdtemp(dir=target.parent, prefix=f'.{target.name}.', suffix='.tmp')
    umask = os.umask(0)
    os.umask(umask)
    os.chmod(folder, 0o777 & ~umask)
    return folder


def _save(path: Path, content: Any) -> None:
    write_atomically(path, lambda file: torch.save(content, file))


def _digests_of_mine(folder: Path) -> dict[str, str]:
    names = [one.name for one in folder.iterdir() if one.name.startswith(f'__{get_rank()}_')]
    names += [STATE, '.metadata'] if is_main_process() else []
    return {name: _digest(folder / name) for name in names}


def _publish(temporary: Path, target: Path, seal: bytes) -> None:
    write_atomically(temporary / SEAL, lambda file: file.write(seal))
    if what := folder_damage(temporary):
        raise UserError(what)
    old = None
    if target.exists():  # a folder cannot be replaced at once; see restore_replaced
        old = Path(f'{temporary}.old.tmp')
        os.rename(target, old)
    os.rename(temporary, target)
    handle = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
    if old is not None:
        remove(old)


def remove(path: str | os.PathLike) -> None:
    """Remove a checkpoint, file or folder; of a folder a kill in between leaves nothing of that name."""
    if not os.path.isdir(path):
        Path(path).unlink(missing_ok=True)
        return
    folder, name = os.path.split(os.fspath(path))
    doomed = os.path.join(folder, name if name.endswith('.tmp') else f'.{name}.removed.tmp')
    if doomed != os.fspath(path):
        shutil.rmtree(doomed, ignore_errors=True)
        os.rename(path, doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def restore_replaced(folder: str | os.PathLike) -> None:
    """Give checkpoints their names back that a kill took from them, while others were about to replace them."""
    for old in Path(folder).glob('.*.old.tmp'):
        target = old.with_name(old.name[1:].removesuffix('.tmp.old.tmp').rpartition('.')[0])
        if is_sharded_checkpoint(old) and not target.exists():
            os.rename(old, target)


class _Index(pickle.Unpickler):
    """Reads PyTorch's index of a folder, and nothing else."""

    _MODULES = ('torch.distributed.checkpoint.metadata', 'torch.distributed.checkpoint.filesystem')
    _KINDS: tuple[str, ...] = (
        'Metadata',
        'TensorStorageMetadata',
        'ChunkStorageMetadata',
        'TensorProperties',
        'MetadataIndex',
    )
    _KINDS += ('StorageMeta', '_MEM_FORMAT_ENCODING', '_StorageInfo')

    def find_class(self, module: str, name: str) -> Any:
        if module in self._MODULES and name in self._KINDS:
            return super().find_class(module, name)
        if module == 'torch' and (name == 'Size' or isinstance(getattr(torch, name, None), torch.dtype)):
            return getattr(torch, name)
        if (module, name) == ('torch.serialization', '_get_layout'):
            return super().find_class(module, name)
        if module in ('pathlib', 'pathlib._local') and name.endswith('Path'):
            return lambda *parts: '/'.join(parts)
        raise pickle.UnpicklingError(f'it asks for {short(f"{module}.{name}")}, which could run code')


def _reader(folder: Path) -> Any:
    """PyTorch's reader of a folder, with its index read safely."""
    from torch.distributed import checkpoint as dcp

    class Reader(dcp.FileSystemReader):
        def read_metadata(self, *args: Any, **kwargs: Any) -> Any:
            with open(folder / '.metadata', 'rb') as file:
                found = _Index(file).load()
            for info in found.storage_data.values():
                if os.path.basename(info.relative_path) != info.relative_path:
                    raise pickle.UnpicklingError(f'a part of it is {short(info.relative_path)!r}, outside the folder')
            if getattr(found, 'storage_meta', None) is not None:
                found.storage_meta.load_id = self.load_id
            return found

    return Reader(folder)


def read_tensors(
    folder: str | os.PathLike, make: Callable[[str, torch.Size, torch.dtype], Tensor | None], alone: bool
) -> dict[str, Tensor]:
    """The tensors of a folder, read into those that ``make`` makes for them.

    Args:
        folder: a checkpoint.
        make: (name, shape, dtype) -> a tensor of that shape, or a DTensor that all processes make; None leaves it out.
        alone: this process reads for itself, rather than all together.

    Raises:
        UserError: the folder is broken, or its index asks for something that could run code.
    """
    from torch.distributed import checkpoint as dcp

    try:
        reader = _reader(Path(folder))
        index = reader.read_metadata().state_dict_metadata
        made = {name: make(name, one.size, one.properties.dtype) for name, one in index.items()}
        found = {name: one for name, one in made.items() if one is not None}
        planner = dcp.DefaultLoadPlanner(flatten_state_dict=False, flatten_sharded_tensors=False)
        dcp.load(found, storage_reader=reader, planner=planner, no_dist=alone)
    except (OSError, MemoryError, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # of a broken or hostile index nearly any kind, and PyTorch's own is no Exception
        raise UserError(f'checkpoint {os.fspath(folder)!r} cannot be read: {short(error)}') from None
    return found


def read_whole(folder: str | os.PathLike, read: Callable[[str], Any]) -> dict[str, Any]:
    """A folder's checkpoint as one of an unsharded run, in this process alone.

    Args:
        folder: a checkpoint.
        read: reads its ``state.pth``.
    """
    rest = read(os.path.join(folder, STATE))
    return put_back(rest, read_tensors(folder, lambda _, shape, dtype: torch.empty(shape, dtype=dtype), alone=True))


def read_state_dict(folder: str | os.PathLike) -> dict[str, Tensor]:
    """The weights alone."""
    root = 'state_dict/'

    def make(name: str, shape: torch.Size, dtype: torch.dtype) -> Tensor | None:
        return torch.empty(shape, dtype=dtype) if name.startswith(root) else None

    found = read_tensors(folder, make, alone=True)
    return {name.removeprefix(root): one for name, one in found.items()}
