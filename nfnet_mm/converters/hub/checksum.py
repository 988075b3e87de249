"""Checksums of files and folders, and the record of those that were seen."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

_CHUNK = 1 << 20


def digest(path: Path, kind: str = 'sha256') -> str:
    """The hexadecimal digest of a file; of a folder that of a list of its files, as ``sha256sum`` writes it."""
    made: Any = hashlib.new(kind, usedforsecurity=False)
    if path.is_dir():
        for file in _files(path):
            made.update(f'{digest(file, kind)}  {file.relative_to(path).as_posix()}\n'.encode())
        return made.hexdigest()
    with open(path, 'rb') as opened:
        while chunk := opened.read(_CHUNK):
            made.update(chunk)
    return made.hexdigest()


def has_checksum(path: Path, checksum: str) -> bool:
    """Whether a file's digest begins as a checksum such as ``'sha256:9f236009'`` states.

    >>> from tempfile import NamedTemporaryFile
    >>> with NamedTemporaryFile() as file:
    ...     has_checksum(Path(file.name), 'sha256:e3b0c442'), has_checksum(Path(file.name), 'md5:e3b0c442')
    (True, False)
    """
    kind, _, digits = checksum.partition(':')
    return digest(path, kind).startswith(digits)


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob('*')) if path.is_file())


@dataclass(frozen=True)
class Record:
    """What a file or folder was when it was first used."""

    url: str
    sha256: str
    size: int
    mtime_ns: int  # of the youngest file

    @classmethod
    def of(cls, path: Path, url: str) -> 'Record':
        """That of a file or folder as it is; reads all of it."""
        return cls(url, digest(path), *_state(path))

    @classmethod
    def read(cls, path: Path) -> 'Record | None':
        """The one beside a file or folder, None if there is none to read."""
        with suppress(OSError, ValueError, TypeError):
            return cls(**json.loads(cls.place(path).read_text()))
        return None

    @staticmethod
    def place(path: Path) -> Path:
        """Where the record of a file or folder is."""
        return path.with_name(f'{path.name}.json')

    def text(self) -> str:
        """What is written there."""
        return json.dumps(asdict(self), indent=1) + '\n'

    def untouched(self, path: Path) -> bool:
        """Whether size and time are as they were, so that the content need not be read again."""
        return (self.size, self.mtime_ns) == _state(path)


def _state(path: Path) -> tuple[int, int]:
    states = [file.stat() for file in (_files(path) if path.is_dir() else (path,))]
    return sum(s.st_size for s in states), max((s.st_mtime_ns for s in states), default=0)
