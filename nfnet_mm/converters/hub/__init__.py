"""Weights by name or address: downloaded once into torch's hub folder, checked, and kept.

A name is looked up in :mod:`.table`, a file is received by :mod:`.download`, a folder by :mod:`.bucket`, and
:mod:`.checksum` holds both against what is known of them.
"""

import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

import torch
from filelock import FileLock, Timeout
from mmengine.logging import print_log

from nfnet_mm.errors import UserError, check_exists, short, write_text

from ..errors import ReadError
from ..formats.orbax import check_installed
from ..formats.read import tell_kind
from .bucket import download_folder
from .checksum import Record, digest, has_checksum
from .download import DiskError, Partial, receive, writing
from .table import HUGGING_FACE, PUBLIC_WEIGHTS, PublicWeights, find_public, near_names

__all__ = ['PUBLIC_WEIGHTS', 'PublicWeights', 'cache_folder', 'local_file']

_OWNERS = ('deepmind/', 'timm/')
# timm's older releases have the first digits of the sha256 in their names, e.g. nf_resnet50_ra2-9f236009.pth.
_TIMMS_RELEASE = re.compile(r'/pytorch-image-models/releases/download/.*-([0-9a-f]{8})\.pth')


def local_file(source: str | os.PathLike, what: str = 'weights') -> str:
    """The path of weights on this machine; those that are named by an address are downloaded first, once.

    Of several processes one downloads, and the others wait. A file that was downloaded is used as long as it is there,
    without asking the network.

    Args:
        source: the path of a file, or of the folder of an Orbax checkpoint; an address (http, https); or a name of
            :data:`PUBLIC_WEIGHTS`, such as ``'deepmind/F0'`` or ``'timm/dm_nfnet_f0.dm_in1k'``, which HF_ENDPOINT
            makes a mirror of Hugging Face serve.
        what: to call it in messages.

    Raises:
        ReadError: there is no such file or name, it cannot be downloaded or written, or it is not what it was or should
            be; one line. Under the path that would have been returned there is then nothing, or what was there before.

    Example:
        >>> local_file('deepmind/F9')
        Traceback (most recent call last):
        ...
        nfnet_mm.converters.errors.ReadError: 'deepmind/F9' names no public weights. Did you mean 'deepmind/F6' or \
'deepmind/F5'?
    """
    if not isinstance(source, (str, os.PathLike)):
        raise ReadError(f'{what}={short(repr(source))} must be a file, an address or a name such as deepmind/F0')
    text = os.fspath(source)
    if os.path.exists(text):
        return text
    if '://' in text:
        place = _place_of_address(text)
    elif text.lower().startswith(_OWNERS) and not text.endswith(('.pth', '.safetensors', '.npz')):
        place = _place_of(find_public(text), text)
    else:
        try:
            check_exists(text, what)
        except UserError as error:
            near = near_names(text)
            if what == 'weights' and not near and not str(error).endswith('?'):
                near = ' Weights are a file, an address or a name such as deepmind/F0'
            raise ReadError(f'{error}{"." if near and not str(error).endswith("?") else ""}{near}') from None
        return text  # it came this moment
    return _kept(place)


def cache_folder() -> Path:
    """Where downloads are kept: in torch's hub folder, which TORCH_HOME moves."""
    return Path(torch.hub.get_dir()) / 'checkpoints' / 'nfnet_mm'


@dataclass(frozen=True)
class _Place:
    """What is to be downloaded, and to where."""

    said: str  # what the user calls it
    url: str
    path: Path
    checksum: str | None = None
    folder: bool = False


def _place_of(row: PublicWeights, said: str) -> _Place:
    url = row.url
    if url.startswith(f'{HUGGING_FACE}/') and (mirror := os.environ.get('HF_ENDPOINT')):
        if not mirror.startswith(('http://', 'https://')):
            raise ReadError(f'HF_ENDPOINT={short(mirror)!r} has to begin with https://')
        url = mirror.rstrip('/') + url.removeprefix(HUGGING_FACE)
    path = cache_folder() / row.file
    if row.kind == 'orbax' and not path.exists():
        check_installed()  # rather than after hundreds of megabytes
    return _Place(said, url, path, row.checksum, row.kind == 'orbax')


def _place_of_address(url: str) -> _Place:
    try:
        parts = urlsplit(url)
        host = parts.netloc.rpartition('@')[2]
    except ValueError as error:
        raise ReadError(f'{short(url)!r} is no address: {short(error)}') from None
    if parts.scheme not in ('http', 'https'):
        raise ReadError(f'{short(url)!r}: downloads are by http:// or https://, not {parts.scheme}://')
    if '@' in parts.netloc:  # not repeated here
        raise ReadError(f'an address on {short(host)!r} with a name or password of a user: download it by hand')
    names = [re.sub(r'[^\w.+=-]', '_', unquote(name))[-150:] for name in parts.path.split('/')]
    names = [name for name in names if name not in ('', '.', '..')]
    if not names or parts.path.endswith('/'):
        raise ReadError(f'{short(url)!r} is no address of a file')
    # a query may say what file it is, and names that are written otherwise here may be those of another
    as_written = '/' + '/'.join(names) == unquote(parts.path)
    if more := parts.query if as_written else f'{parts.path}?{parts.query}':
        names.insert(-1, hashlib.sha256(more.encode()).hexdigest()[:8])
    release = _TIMMS_RELEASE.fullmatch(parts.path[parts.path.find('/pytorch-image-models/') :])
    path = cache_folder().joinpath(re.sub(r'[^\w.-]', '_', host) or '_', *names)
    return _Place(url, url, path, f'sha256:{release[1]}' if release else None)


def _kept(place: _Place) -> str:
    """The path of what was downloaded, by this process or before."""
    if not place.path.exists():
        with writing(place.path.parent):
            place.path.parent.mkdir(parents=True, exist_ok=True)
        with _alone(place):
            if not place.path.exists():
                _fetch(place)
                return str(place.path)
    _check_kept(place)
    return str(place.path)


@contextmanager
def _alone(place: _Place) -> Iterator[None]:
    """Wait until no other process downloads the same. The lock of a process that has died is none."""
    lock = FileLock(place.path.with_name(f'.{place.path.name}.lock'))
    with writing(Path(lock.lock_file)):
        try:
            lock.acquire(timeout=0)
        except Timeout:
            print_log(f'waiting for another process that downloads {place.said}', logger='current')
            lock.acquire()
        except NotImplementedError:  # a file system without locks
            pass
    try:
        yield
    finally:
        lock.release()


def _fetch(place: _Place) -> None:
    """Download, check, and give it its name."""
    part = Partial(place.path)
    try:
        stated: list[str] = []
        if place.folder:
            download_folder(place.url, part.path)
        else:
            stated = receive(place.url, part)
    except ReadError as error:
        named = '' if place.said == place.url else f'{place.said!r}: '
        by_hand = '' if isinstance(error, DiskError) else f'; it can be put at {str(place.path)!r} by hand'
        raise ReadError(f'{named}{place.url!r} was not downloaded: {error}{by_hand}') from None
    try:
        if not place.folder:
            with open(part.path, 'rb') as file:
                tell_kind(file.read(16))
        _check(place, part.path, stated)
    except ReadError as error:
        part.discard()
        raise ReadError(f'{place.url!r} was downloaded and not kept: {error}') from None
    with writing(place.path):
        os.replace(part.path, place.path)
    part.discard()
    _record(place, bool(place.checksum or stated))


def _check(place: _Place, path: Path, stated: list[str]) -> None:
    for checksum in filter(None, (place.checksum, *stated)):
        if not has_checksum(path, checksum):
            kind, _, digits = checksum.partition(':')
            raise ReadError(f'its {kind} is {digest(path, kind)}, and not {digits}')
    if (record := Record.read(place.path)) and not has_checksum(path, f'sha256:{record.sha256}'):
        now, where = digest(path), str(Record.place(place.path))
        before = f'not {record.sha256} as at its first download: if a new one was published, delete {where!r}'
        raise ReadError(f'its sha256 is {now}, {before}')


def _check_kept(place: _Place) -> None:
    """Hold what is there against its record, or against what is known if it was put there by hand."""
    record = Record.read(place.path)
    if record and record.untouched(place.path):
        return
    try:
        _check(place, place.path, [])
        _record(place, bool(place.checksum or record))
    except ReadError as error:
        raise ReadError(f'{str(place.path)!r} is not {place.said}: {error}') from None
    except OSError as error:
        raise ReadError(f'{str(place.path)!r} cannot be read: {error.strerror or short(error)}') from None


def _record(place: _Place, known: bool) -> None:
    record, where = Record.of(place.path, place.url), Record.place(place.path)
    try:
        write_text(where, record.text())
    except UserError as error:  # a folder that others keep
        print_log(f'{error}: {place.said} is not held against it the next time', logger='current')
        return
    if not known:
        what = f'no checksum of {place.said} is known: its sha256, {record.sha256}'
        print_log(f'{what}, is recorded in {str(where)!r} and compared from now on', logger='current')
