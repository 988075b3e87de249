"""Read the state dict of a PyTorch ``.pth`` file, zip archive or older, without running anything in it."""

import io
import re
import warnings
import zipfile
from collections.abc import Mapping
from typing import Any, BinaryIO

import torch
from torch import Tensor

from nfnet_mm.errors import short

from ..errors import ReadError, malformed
from .older_torch import HAS_ALLOW_LIST, Restricted, forced_safe_loading_lifted
from .pickled import Bounded

_MAX_TUPLES = 100_000  # NFNet-F6 with momentum and averaged weights has under 30,000
_ZIP = b'PK\x03\x04'
# What torch.save began with before it wrote zip archives (and timm's releases still do): a pickled magic number.
_LEGACY = b'\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.'
_LEGACY_PICKLES = 4  # magic number, version, system, weights
BEGINNINGS = (_ZIP, _LEGACY)


def read_pytorch(file: BinaryIO, size: int) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The dense tensors of a file of ``size`` bytes, opened for binary reading, and its ``meta``.

    Raises:
        ReadError: the file is cut off or broken, could run code, would take more memory than it is long, or holds
            anything but one state dict.
    """
    if file.read(len(_ZIP)) == _ZIP:
        _check_zip(file, size)
    else:
        file.seek(0)
        for _ in range(_LEGACY_PICKLES):
            _check_nesting(file)
    try:
        file.seek(0)
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            loaded = _load(file)
    except MemoryError:
        raise
    except Exception as error:  # PyTorch raises nearly any kind on a broken or hostile file
        raise ReadError(_reason(error)) from None
    state_dict, meta = _pick(loaded)
    total = 0
    for name, value in state_dict.items():
        if type(name) is not str:  # and may be nested too deeply to be shown
            raise ReadError(f'it has weights named by {type(name).__name__}, not by text')
        if not isinstance(value, Tensor):
            raise ReadError(f'{short(name)} is a {type(value).__name__}, not a weight')
        if value.layout is not torch.strided or value.is_quantized or value.is_nested or value.device.type != 'cpu':
            raise ReadError(f'{short(name)} is not a dense tensor')
        total += value.numel() * value.element_size()
        if total > size:  # a few bytes shown as a large tensor
            raise ReadError(f'the tensors up to {short(name)} take more bytes than the file has')
    return {k: v.detach() for k, v in state_dict.items()}, meta


def pickled_texts(file: BinaryIO) -> set[str]:
    """Every text in the pickles of a ``.pth`` file opened for binary reading: the names of its weights, and others.

    Nothing is unpickled or run, and no weight is read.

    Raises:
        ReadError: the file is cut off or broken, or is a zip archive without pickles of PyTorch.
    """
    pickles: list[BinaryIO] = [file] * _LEGACY_PICKLES
    if file.read(len(_ZIP)) == _ZIP:
        with malformed('the .pth archive is cut off or broken'), zipfile.ZipFile(file) as archive:
            members = [m for m in archive.infolist() if m.filename.endswith('/data.pkl')]
            pickles = [io.BytesIO(archive.read(m)) for m in members if m.compress_type == zipfile.ZIP_STORED]
        if not pickles:
            raise ReadError('a zip archive without weights of PyTorch in it')
    else:
        file.seek(0)
    with malformed('the .pth file is cut off or broken'):
        instructions = (found for one in pickles for found in Bounded(one).instructions())
        return {argument for _, argument, _ in instructions if isinstance(argument, str)}


def _check_zip(file: BinaryIO, size: int) -> None:
    """Refuse archives that are not PyTorch's, or that unpack to more than they are."""
    with malformed('the .pth archive is cut off or broken'), zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        if members and all(m.filename.endswith('.npy') for m in members):
            raise ReadError("a NumPy archive; DeepMind's files are pickles in spite of their suffix")
        pickles = [m for m in members if m.filename.endswith('/data.pkl')]
        if not pickles:
            raise ReadError('a zip archive without weights of PyTorch in it')
        if any(m.compress_type != zipfile.ZIP_STORED for m in members) or sum(m.file_size for m in members) > size:
            raise ReadError('the archive unpacks to more than its size, which no .pth file does')
        for member in pickles:
            _check_nesting(io.BytesIO(archive.read(member)))


def _check_nesting(file: BinaryIO) -> None:
    """Refuse a pickle that could nest tuples so deeply that Python, hashing one as a key, would overrun its stack."""
    with malformed('the .pth file is cut off or broken'):
        tuples = sum(opcode.name.startswith('TUPLE') for opcode, _, _ in Bounded(file).instructions())
    if tuples > _MAX_TUPLES:
        raise ReadError(f'the .pth file has {tuples} tuples in it, far more than weights need')


class _Nothing:
    """Takes the place of what mmengine's checkpoints hold beside weights; made, called or set, it does nothing."""

    def __new__(cls, *_: Any) -> '_Nothing':
        return object.__new__(cls)

    def __setstate__(self, _: Any) -> None:
        pass


# Classes of these names, rather than one class for all: PyTorch before 2.6 knows them by their own name only.
_PATHS = [f'numpy.{core}.multiarray.{name}' for core in ('core', '_core') for name in ('_reconstruct', 'scalar')]
_PATHS += ['mmengine.logging.history_buffer.HistoryBuffer', 'builtins.getattr', 'numpy.dtype', 'numpy.ndarray']
_BESIDE_WEIGHTS: list[Any] = [
    type(name, (_Nothing,), {'__module__': module}) for module, _, name in (path.rpartition('.') for path in _PATHS)
]


def _load(file: BinaryIO) -> Any:
    if HAS_ALLOW_LIST:
        with torch.serialization.safe_globals(_BESIDE_WEIGHTS):
            return torch.load(file, map_location='cpu', weights_only=True)
    module = Restricted({f'{one.__module__}.{one.__name__}': one for one in _BESIDE_WEIGHTS})
    with forced_safe_loading_lifted():  # which a pickle module of our own contradicts
        return torch.load(file, map_location='cpu', pickle_module=module)


def _pick(loaded: Any) -> tuple[Mapping[str, Any], dict[str, Any]]:
    """The state dict in what was loaded, and its meta."""
    if not isinstance(loaded, Mapping) or not loaded:
        raise ReadError(f'it holds a {type(loaded).__name__}, not a state dict')
    if 'state_dict_ema' in loaded:
        raise ReadError('it holds both state_dict and state_dict_ema: save the one you want by itself')
    for key in ('state_dict', 'model'):
        if isinstance(loaded.get(key), Mapping):
            meta = loaded.get('meta')
            return loaded[key], dict(meta) if isinstance(meta, Mapping) else {}
    return loaded, {}


def _reason(error: Exception) -> str:
    text = str(error)
    refused = re.search(r'GLOBAL (\S+)|call reduce for unrecognized function (\S+)', text)
    if refused:
        return f'it asks for {short(refused[1] or refused[2])}, which is no weight: loading it could run code'
    reason = re.search(r'WeightsUnpickler error: *(.*)', text)
    return f'the .pth file is cut off, broken or not only weights: {short(reason[1] if reason else f"{error!r}")}'
