"""A folder's files in one uncompressed tar, with an index by which each is read at once.

The index is the tar's first member, so every tar program lists and unpacks the file. A file is read by one system call
(``pread``), which moves no position: processes that were forked share the open file, and an error of the disk is an
exception of that read, where a mapped file, as LMDB's, would end the process.
"""

import io
import os
import shutil
import stat
import tarfile
import tempfile
import zlib
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any, BinaryIO

import numpy as np

from nfnet_mm.errors import UserError, check_exists, did_you_mean, short, some, write_atomically

SUFFIX = '.tar'
_INDEX = '.nfnet_mm_index'
# Of the index, one after another as .npy, after their checksum: the names in one text, and where each ends; where each
# file begins, its size and its checksum; and the size of the pack.
_ARRAYS = ('names', 'ends', 'offsets', 'sizes', 'sums', 'whole')
_DIGITS = 8  # of a checksum in the index
_BLOCK = tarfile.BLOCKSIZE
_SEARCHED = 2000  # names of a folder that are searched for one like a missing one
_AGAIN = 'make it anew with python -m nfnet_mm pack FOLDER FILE.tar'


class Pack:
    """Reads a pack, which stays open; safe in threads and in forked processes.

    Args:
        path: the file.

    Raises:
        UserError: there is none, it is no pack of this package, or cut off.
    """

    def __init__(self, path: str) -> None:
        check_exists(path, 'pack')
        self.path = path
        try:
            self._file = open(path, 'rb', buffering=0)  # noqa: SIM115
            index = _read_index(path)
        except OSError as error:
            raise UserError(f'pack {path!r} cannot be read: {error.strerror or error}') from None
        self._text = index['names'].tobytes()
        self._ends: np.ndarray = index['ends']  # of the names in that text; they are sorted
        self._offsets, self._sizes, self._sums = index['offsets'], index['sizes'], index['sums']
        whole, there = int(index['whole']), os.fstat(self._file.fileno()).st_size
        if there != whole:
            what = 'is cut off' if there < whole else 'was changed'
            raise UserError(f'pack {path!r} {what}: it has {there:,} bytes, and its index tells of {whole:,}: {_AGAIN}')

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, number: int) -> bytes:
        """A file's name, in UTF-8, by its place in the order of the names."""
        return self._text[self._ends[number - 1] if number else 0 : self._ends[number]]

    def read(self, name: str) -> bytes:
        """The content of a file.

        Args:
            name: its path in the folder that was packed.

        Raises:
            OSError: there is no such file, or its bytes are not those that were packed.
        """
        number = self._find(name)
        if number is None:
            raise FileNotFoundError(f'the pack {self.path!r} has no file {name!r}{self._near(name)}')
        size = int(self._sizes[number])
        content = _read(self._file.fileno(), size, int(self._offsets[number]))
        if len(content) != size or zlib.crc32(content) != self._sums[number]:
            raise OSError(f'the pack {self.path!r} is damaged at {name!r}: its bytes are not those that were packed')
        return content

    def is_file(self, name: str) -> bool:
        """Whether there is such a file."""
        return self._find(name) is not None

    def is_folder(self, name: str) -> bool:
        """Whether there is such a folder; a pack holds no empty ones."""
        return next(self.entries(name), None) is not None

    def entries(self, folder: str) -> Iterator[tuple[str, bool]]:
        """(name, whether it is a folder) of all that is in a folder, in the order of the files' names."""
        start = _bytes(f'{folder}/') if folder else b''
        number = bisect_left(self, start)  # type: ignore[type-var]
        while number < len(self) and (name := self[number]).startswith(start):
            first, slash, _ = name[len(start) :].partition(b'/')
            yield first.decode(errors='surrogateescape'), bool(slash)
            # past all that is in it: '0' follows '/'
            number = bisect_left(self, start + first + b'0', number) if slash else number + 1  # type: ignore[type-var]

    def _find(self, name: str) -> int | None:
        key = _bytes(name)
        number = bisect_left(self, key)  # type: ignore[type-var]
        return number if number < len(self) and self[number] == key else None

    def _near(self, name: str) -> str:
        folder, last = os.path.split(name)
        if self.is_folder(folder):
            return did_you_mean(last, [entry for entry, _ in islice(self.entries(folder), _SEARCHED)])
        return f', and holds {some(entry for entry, _ in self.entries(""))}'


def _bytes(name: str) -> bytes:
    return name.encode(errors='surrogateescape')


def _read(file: int, size: int, offset: int) -> bytes:
    """``size`` bytes, or fewer at the file's end; Linux gives at most 2 GiB at once."""
    content = os.pread(file, size, offset)
    while len(content) < size and (more := os.pread(file, size - len(content), offset + len(content))):
        content += more
    return content


def _read_index(path: str) -> dict[str, np.ndarray]:
    try:
        with tarfile.open(path, 'r:') as tar:
            first = tar.next()
            if first is not None and first.name == _INDEX:
                content: Any = tar.extractfile(first)
                stream = io.BytesIO(content.read())
                if stream.read(_DIGITS) != _digits(stream.getbuffer()[_DIGITS:]):
                    raise ValueError('the checksum of its index is another')
                return {name: np.load(stream, allow_pickle=False) for name in _ARRAYS}
    except (tarfile.TarError, ValueError, EOFError) as error:
        raise UserError(f'pack {path!r} is no pack, or cut off ({short(error)}): {_AGAIN}') from None
    raise UserError(f'{path!r} is a tar file without an index, which a pack has as its first member: {_AGAIN}')


def write_pack(folder: str, target: str, say: Callable[[str], Any] = lambda _: None) -> int:
    """Put all files of a folder, but hidden ones, into one file; links are followed.

    The file appears under its name when it is whole and has been read back, and not at all otherwise. The same folder
    gives the same bytes.

    Args:
        folder: what to pack.
        target: the file to write, ending in ``.tar``.
        say: is told now and then how far it is.

    Returns:
        how many files are in it.

    Raises:
        UserError: there is no such folder or nothing in it, a file in it cannot be read or changes meanwhile, or the
            target is in the folder, exists, is not named so, or the disk has not the room for it.
    """
    if not os.path.isdir(folder):
        raise UserError(f'{folder!r} is no folder: name the one whose files are to be packed')
    if not target.endswith(SUFFIX):
        raise UserError(f'{target!r} must end in {SUFFIX}: by that a pack is known from a folder')
    if os.path.exists(target):
        raise UserError(f'{target!r} exists: delete it first, or name another file')
    place = os.path.dirname(os.path.abspath(target))
    if not os.path.isdir(place):
        raise UserError(f'{target!r} cannot be written: there is no folder {place!r}')
    if os.path.join(os.path.realpath(place), '').startswith(os.path.join(os.path.realpath(folder), '')):
        raise UserError(f'{target!r} would be in the folder that is packed: name a file elsewhere')
    names = sorted(_files(folder), key=_bytes)
    if not names:
        raise UserError(f'{folder!r} holds no files')
    sizes = [_size(folder, name) for name in names]
    if (free := shutil.disk_usage(place).free) < sum(sizes) + 2 * _BLOCK * len(names):
        raise UserError(f'{target!r} takes {sum(sizes) / 1e9:.1f} GB, and {place!r} has {free / 1e9:.1f} GB left')

    try:
        with tempfile.TemporaryDirectory(dir=place, prefix=f'.{os.path.basename(target)}.') as hidden:
            whole = os.path.join(hidden, 'pack.tar')
            write_atomically(whole, lambda file: _write(file, folder, names, sizes, say))
            check_pack(whole, say)
            os.rename(whole, target)
    except OSError as error:
        raise UserError(f'{target!r} was not written: {error.strerror or error}') from None
    return len(names)


def check_pack(path: str, say: Callable[[str], Any] = lambda _: None) -> int:
    """Read every file of a pack, and hold it against its checksum.

    Returns:
        how many files are in it.

    Raises:
        UserError: it is no pack or is cut off, or files are damaged, of which the first are named.
    """
    pack, broken = Pack(path), []
    for done, number in enumerate(range(len(pack)), 1):
        name = pack[number].decode(errors='surrogateescape')
        try:
            pack.read(name)
        except OSError:
            broken.append(name)
        say(f'{done:,} of {len(pack):,} files read')
    if broken:
        raise UserError(
            f'pack {path!r} is damaged: {len(broken)} of {len(pack)} files are not as packed: {some(broken)}'
        )
    return len(pack)


def _files(folder: str) -> Iterator[str]:
    """The paths of a folder's files in it, with slashes."""

    def stop(error: OSError) -> None:
        raise UserError(f'{error.filename!r} cannot be read: {error.strerror}')

    ways = {folder: [os.path.realpath(folder)]}  # to a folder: those it was reached through, without links
    for place, folders, names in os.walk(folder, followlinks=True, onerror=stop):
        folders[:] = [name for name in folders if not name.startswith('.')]
        way = ways.pop(place)
        for name in folders:
            path = os.path.join(place, name)
            inner = os.path.realpath(path)
            if any(one == inner or one.startswith(os.path.join(inner, '')) for one in way):
                raise UserError(f'{path!r} is a link to a folder that it is in')
            ways[path] = [*way, inner]
        below = os.path.relpath(place, folder).replace(os.sep, '/')
        for name in names:
            if not name.startswith('.'):
                yield name if below == '.' else f'{below}/{name}'


def _size(folder: str, name: str) -> int:
    path = os.path.join(folder, name)
    try:
        found = os.stat(path)
    except OSError as error:  # a link to nothing
        raise UserError(f'{path!r} cannot be read: {error.strerror}') from None
    if not stat.S_ISREG(found.st_mode):  # reading a pipe would wait for ever
        raise UserError(f'{path!r} is no file that has a content, but a pipe, a socket or a device: remove it')
    return found.st_size


def _write(file: BinaryIO, folder: str, names: Sequence[str], sizes: Sequence[int], say: Callable[[str], Any]) -> None:
    keys = [_bytes(name) for name in names]
    arrays: dict[str, Any] = dict(
        names=np.frombuffer(b''.join(keys), np.uint8),
        ends=np.cumsum([len(key) for key in keys], dtype=np.int64),
        offsets=np.zeros(len(names), np.int64),
        sizes=np.array(sizes, np.int64),
        sums=np.zeros(len(names), np.uint32),
        whole=np.int64(0),
    )
    with tarfile.open(fileobj=file, mode='w', format=tarfile.PAX_FORMAT) as tar:
        index = _add(tar, _INDEX, _saved(arrays))  # of the size of the one that is known at the end
        for number, name in enumerate(names):
            try:
                with open(os.path.join(folder, name), 'rb') as source:
                    content = source.read()
            except OSError as error:
                raise UserError(f'{os.path.join(folder, name)!r} cannot be read: {error.strerror}') from None
            if len(content) != sizes[number]:
                raise UserError(f'{os.path.join(folder, name)!r} was changed while it was packed')
            arrays['offsets'][number] = _add(tar, name, content)
            arrays['sums'][number] = zlib.crc32(content)
            say(f'{number + 1:,} of {len(names):,} files packed')
    arrays['whole'] = np.int64(file.tell())
    file.seek(index)
    file.write(_saved(arrays))


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> int:
    """Append a file; where its content begins."""
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))
    return int(tar.offset) - -(-len(content) // _BLOCK) * _BLOCK  # type: ignore[attr-defined]


def _saved(arrays: dict[str, Any]) -> bytes:
    content = io.BytesIO()
    for name in _ARRAYS:
        np.save(content, arrays[name], allow_pickle=False)
    return _digits(content.getbuffer()) + content.getvalue()


def _digits(content: memoryview) -> bytes:
    """A checksum."""
    return f'{zlib.crc32(content):0{_DIGITS}x}'.encode()
