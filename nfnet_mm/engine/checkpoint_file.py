"""Checkpoint files that tell whether they are whole: written at once or not at all, sealed by a digest.

The seal is the comment of the zip archive that ``torch.save`` writes, so every reader of PyTorch's files reads a sealed
one. It covers every byte before it, where the archive's own checksums leave gaps.
"""

import hashlib
import io
import os
import re
import zipfile
import zlib
from typing import BinaryIO

from nfnet_mm.errors import write_atomically

from .sharded_checkpoint import folder_damage, is_sharded_checkpoint

_SEAL = b'nfnet_mm sha256 '
_LENGTH = len(_SEAL) + 64
_CHUNK = 1 << 22


def write_sealed(path: str | os.PathLike, content: bytes) -> None:
    """Write what ``torch.save`` made, sealed; the file is there whole or not at all.

    Raises:
        UserError: it cannot be written.
    """
    # a zip archive ends with the length of its comment, which is none yet
    assert content[-2:] == b'\0\0' and zipfile.is_zipfile(io.BytesIO(content)), 'not an archive without a comment'
    body = memoryview(content)[:-2]
    seal = _SEAL + hashlib.sha256(body).hexdigest().encode()

    def write(file: BinaryIO) -> None:
        file.write(body)
        file.write(len(seal).to_bytes(2, 'little') + seal)

    write_atomically(path, write)


def damage(path: str | os.PathLike) -> str | None:
    """Why a checkpoint file is not whole; None if it is, as far as it can tell.

    A sealed file tells of every changed byte. Of another of PyTorch's zip archives the checksums in it are compared;
    one that an old PyTorch wrote has none. The folder of a sharded run has the digests of its parts.
    """
    if os.path.isdir(path):
        return folder_damage(path) if is_sharded_checkpoint(path) else 'it is a folder, and not that of a sharded run'
    try:
        size = os.path.getsize(path)
        if not size:
            return 'it is empty'
        with open(path, 'rb') as file:
            file.seek(max(size - _LENGTH, 0))
            seal = re.fullmatch(_SEAL + rb'([0-9a-f]{64})', file.read())
            file.seek(0)
            if seal:
                return _broken_seal(file, size, seal[1].decode())
            start = file.read(4)
            if start == b'PK\x03\x04':
                with zipfile.ZipFile(file) as archive:
                    bad = (archive.comment and 'seal') or archive.testzip()  # PyTorch writes no comments
                return f'its part {bad!r} was changed' if bad else None
            if start != b'\x80\x02\x8a\n':  # of the files that torch.save wrote before 1.6
                return "it is no file of PyTorch's"
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError):
        return 'it is cut off or broken'
    except OSError as error:
        return str(error.strerror or error)
    return None


def _broken_seal(file: BinaryIO, size: int, digest: str) -> str | None:
    found, left = hashlib.sha256(), size - _LENGTH - 2
    while left > 0 and (chunk := file.read(min(_CHUNK, left))):
        found.update(chunk)
        left -= len(chunk)
    whole = left == 0 and file.read(2) == _LENGTH.to_bytes(2, 'little') and found.hexdigest() == digest
    return None if whole else 'its content was changed after it was written'
