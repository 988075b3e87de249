"""Read a file of weights, knowing it by its content, without running anything in it."""

import os
import re
from dataclasses import dataclass, field
from io import BufferedReader
from typing import Any

import numpy as np
from torch import Tensor

from nfnet_mm.engine.sharded_checkpoint import is_sharded_checkpoint, read_state_dict
from nfnet_mm.errors import UserError, short, some

from ..errors import ReadError, naming
from .orbax import find_checkpoint, read_orbax
from .pickled import read_pickled_tree
from .pytorch import BEGINNINGS, read_pytorch
from .safetensors import read_safetensors

_PICKLE = re.compile(rb'\x80[\x02-\x05]|\(dp|\}q|chaiku\.|ccollections\n|c__builtin__\n|cbuiltins\n')
_OTHER = {b'\x1f\x8b': 'gzip', b'BZh': 'bzip2', b'\xfd7zXZ': 'xz', b'7z\xbc': '7-zip'}
_OTHER |= {b'\x89HDF': 'HDF5', b'\x93NUMPY': 'NumPy .npy'}


@dataclass
class Content:
    """What a file holds: a tree of arrays (DeepMind's) or a state dict, and what is written about it."""

    kind: str  # 'pickle', 'torch', 'safetensors' or 'orbax'
    tree: dict[str, dict[str, np.ndarray]] | None = None
    state: dict[str, dict[str, np.ndarray]] | None = None  # beside a tree: a network's averages
    state_dict: dict[str, Tensor] | None = None
    meta: dict[str, Any] = field(default_factory=dict)


def read_weights(path: str | os.PathLike) -> Content:
    """Read DeepMind's pickles, PyTorch's ``.pth`` (both formats), ``.safetensors``, and folders, by content.

    The folders are Orbax's, and the checkpoints of sharded runs.

    Pickles are never unpickled (see :mod:`nfnet_mm.converters.formats.pickled`); ``.pth`` files are loaded with
    ``weights_only=True``, the training state that mmengine keeps beside the weights read as nothing at all.

    Raises:
        ReadError: the file cannot be read safely, or holds no weights; one line that begins with the path.
    """
    with naming(path):
        try:
            if is_sharded_checkpoint(path):
                return Content('torch', state_dict=read_state_dict(path))
            if os.path.isdir(path):
                if (folder := find_checkpoint(path)) is None:
                    inside = some(name for name in os.listdir(path) if name.endswith(('.pth', '.safetensors', '.npz')))
                    raise ReadError(f'a folder, and no Orbax checkpoint; files of weights in it: {inside or "none"}')
                return Content('orbax', *read_orbax(folder))
            if os.path.exists(path) and not os.path.isfile(path):  # opening a pipe would wait for ever
                raise ReadError('not a regular file')
            with open(path, 'rb') as file:
                return _read(file, os.fstat(file.fileno()).st_size)
        except UserError as error:  # of a folder
            raise error if isinstance(error, ReadError) else ReadError(str(error)) from None
        except OSError as error:
            raise ReadError(error.strerror or short(error)) from None
        except MemoryError:
            raise ReadError('it asks for more memory than there is') from None


def _read(file: BufferedReader, size: int) -> Content:
    kind = tell_kind(file.read(16))
    file.seek(0)
    if kind == 'torch':
        state_dict, meta = read_pytorch(file, size)
        return Content('torch', state_dict=state_dict, meta=meta)
    if kind == 'pickle':
        return Content('pickle', tree=read_pickled_tree(file))
    state_dict, texts = read_safetensors(file)
    return Content('safetensors', state_dict=state_dict, meta=dict(texts))


def tell_kind(head: bytes) -> str:
    """The kind of a file of weights, 'torch', 'pickle' or 'safetensors', by its first 16 bytes.

    Raises:
        ReadError: it is none of them; the message says what it looks like.
    """
    if not head:
        raise ReadError('the file is empty')
    if head.startswith(BEGINNINGS):
        return 'torch'
    if _PICKLE.match(head):
        return 'pickle'
    if head[6:9] == b'\0\0{':  # a length of a sane size, then JSON
        return 'safetensors'
    for magic, name in _OTHER.items():
        if head.startswith(magic):
            raise ReadError(f'a {name} file, not a pickle, .pth or .safetensors')
    if all(c in b'\t\n\r' or 32 <= c < 127 for c in head):
        raise ReadError(f'it is text, beginning {short(head.decode())!r}: was a page or pointer saved in its place?')
    raise ReadError(f'it begins with {head[:8].hex(" ")}, as no pickle, .pth or .safetensors file does')
