"""Reads ``pack://FILE.tar/PATH`` wherever mmengine reads files, as the frameworks' data sets, steps and metrics do."""

import functools
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmengine.fileio import BaseStorageBackend, register_backend

from nfnet_mm.errors import UserError

from .tar import SUFFIX, Pack

PREFIX = 'pack'
_open = functools.cache(Pack)


def address(path: str) -> str:
    """The address of a pack.

    >>> address('data/imagenet.tar')
    'pack://data/imagenet.tar/'
    """
    return f'{PREFIX}://{path.rstrip("/")}/'


class PackBackend(BaseStorageBackend):
    """mmengine's file backend of packs, which can only be read.

    mmengine finds it by ``pack://`` at the start of a path, without ``backend_args``. Each process opens a pack when it
    first reads from it.
    """

    def __init__(self, **kwargs: Any) -> None:
        if kwargs:
            raise UserError(f'backend_args of {PREFIX!r} takes no arguments, got {", ".join(kwargs)}')

    def get(self, filepath: str | Path) -> bytes:
        """The content of a file.

        Raises:
            OSError: the pack has no such file, or it is damaged there.
            UserError: there is no such pack.
        """
        pack, name = _split(filepath)
        return pack.read(name)

    def get_text(self, filepath: str | Path, encoding: str = 'utf-8') -> str:
        """The same as text."""
        return self.get(filepath).decode(encoding)

    def exists(self, filepath: str | Path) -> bool:
        """Whether there is such a file or folder."""
        return self.isfile(filepath) or self.isdir(filepath)

    def isdir(self, filepath: str | Path) -> bool:
        """Whether there is such a folder; a pack holds no empty ones."""
        pack, name = _split(filepath)
        return pack.is_folder(name)

    def isfile(self, filepath: str | Path) -> bool:
        """Whether there is such a file."""
        pack, name = _split(filepath)
        return pack.is_file(name)

    def join_path(self, filepath: str | Path, *filepaths: str | Path) -> str:
        """As ``os.path.join`` does."""
        return os.path.join(filepath, *filepaths)

    @contextmanager
    def get_local_path(self, filepath: str | Path) -> Iterator[str]:
        """A copy of a file on the disk, for as long as the context lasts."""
        with tempfile.TemporaryDirectory() as folder:
            copy = os.path.join(folder, os.path.basename(str(filepath)))
            Path(copy).write_bytes(self.get(filepath))
            yield copy

    def list_dir_or_file(
        self,
        dir_path: str | Path,
        list_dir: bool = True,
        list_file: bool = True,
        suffix: str | tuple[str, ...] | None = None,
        recursive: bool = False,
    ) -> Iterator[str]:
        """The paths, from a folder on, of what is in it; arguments are those of mmengine's local backend."""
        pack, folder = _split(dir_path)

        def below(path: str) -> Iterator[str]:
            for name, is_folder in pack.entries(f'{folder}/{path}'.strip('/')):
                inner = f'{path}/{name}' if path else name
                if is_folder:
                    if list_dir:
                        yield inner
                    if recursive:
                        yield from below(inner)
                elif list_file and (suffix is None or inner.endswith(suffix)):
                    yield inner

        return below('')


register_backend(PREFIX, PackBackend, prefixes=PREFIX, force=True)


def _split(path: str | Path) -> tuple[Pack, str]:
    """The pack of an address, and the path of a file or folder in it."""
    whole = os.path.normpath(str(path).partition('://')[2])
    parts = whole.split('/')
    ends = [i for i, part in enumerate(parts, 1) if part.endswith(SUFFIX)]
    for end in ends:
        file = '/'.join(parts[:end])
        if end == ends[-1] or not os.path.isdir(file):
            return _open(file), '/'.join(parts[end:])
    raise UserError(f'{path!r} names no pack: {PREFIX}://FILE{SUFFIX}/PATH does')
