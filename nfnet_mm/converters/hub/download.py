"""Download a file: resumed after a break, and there whole or not at all."""

import http.client
import json
import os
import shutil
import socket
import ssl
import sys
import time
import urllib.error
import urllib.request
from base64 import b64decode
from binascii import Error as NotBase64
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from mmengine.logging import print_log

from nfnet_mm import __version__
from nfnet_mm.errors import short

from ..errors import ReadError

TIMEOUT = 30.0  # seconds that a server may be silent
TRIES = 4  # one after another without progress
PAUSE = 1.0  # seconds before the second of them; doubled before each further one
_PROGRESS = 1 << 20  # bytes that count as progress
_CHUNK = 1 << 18
_BUSY = (408, 425, 429)  # what a server answers that may do better in a moment, beside all of 500 and above

T = TypeVar('T')


class DiskError(ReadError):
    """A file or folder cannot be written."""


class _Break(Exception):
    """The transfer broke, and may go on where it stopped."""


class _Stale(_Break):
    """What has arrived is of another state of the file."""


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirections, never out of encryption, and keeps the checksum that Hugging Face states beside one."""

    def __init__(self) -> None:
        self.checksums: list[str] = []

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        before, after = urlsplit(req.full_url).scheme, urlsplit(newurl).scheme
        if after not in (before, 'https'):
            raise ReadError(f'it is redirected from {before} to {short(newurl)!r}')
        self.checksums += _stated_checksums(headers)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _stated_checksums(headers: Any) -> list[str]:
    """The checksums of the whole file in the headers of an answer of Hugging Face's or Google's storage."""
    found = []
    tag = (headers.get('X-Linked-ETag') or '').strip('"')
    if len(tag) == 64 and set(tag) <= set('0123456789abcdef'):
        found.append(f'sha256:{tag}')
    for line in headers.get_all('x-goog-hash') or ():
        for entry in line.split(','):
            kind, _, value = entry.strip().partition('=')
            if kind == 'md5':
                with suppress(NotBase64):
                    found.append(f'md5:{b64decode(value).hex()}')
    return found


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Say in one line that a file or folder cannot be written.

    Raises:
        DiskError: it cannot.
    """
    try:
        yield
    except OSError as error:
        said = f'{str(path)!r} cannot be written: {error.strerror or short(error)}'
        raise DiskError(f'{said}; TORCH_HOME names another folder to keep downloads in') from None


@contextmanager
def _opened(url: str, headers: dict[str, str]) -> Iterator[tuple[http.client.HTTPResponse, list[str]]]:
    """The answer to a request and the checksums that were stated on the way."""
    redirects = _Redirects()
    headers = {'User-Agent': f'nfnet_mm/{__version__}', 'Accept-Encoding': 'identity', **headers}
    try:
        request = urllib.request.Request(url, headers=headers)
        response = urllib.request.build_opener(redirects).open(request, timeout=TIMEOUT)
    except ReadError:
        raise
    except urllib.error.HTTPError as error:
        error.close()
        reason = short(error.msg.partition('\n')[0])  # of endless redirections it is several lines
        said = f'the server answers {error.code} {reason}'
        if error.code == 416:
            raise _Stale(said) from None
        raise (_Break if error.code in _BUSY or error.code >= 500 else ReadError)(said) from None
    except urllib.error.URLError as error:
        cause = error.reason
        if isinstance(cause, (str, socket.gaierror, ConnectionRefusedError, ssl.SSLError)):
            raise ReadError(_of(cause)) from None
        raise _Break(_of(cause)) from None
    except (http.client.InvalidURL, ValueError) as error:
        raise ReadError(f'it is no address of a file: {short(error)}') from None
    except (http.client.HTTPException, OSError) as error:
        raise _Break(_of(error)) from None
    with response:
        yield response, redirects.checksums + _stated_checksums(response.headers)


def _of(error: BaseException | str) -> str:
    if isinstance(error, TimeoutError):
        return f'the server was silent for {TIMEOUT:g} s'
    return short(getattr(error, 'strerror', None) or error) or type(error).__name__


def _with_tries(attempt: Callable[[], T], progress: Callable[[], int]) -> T:
    """What ``attempt`` returns; repeated where the transfer broke, as long as there is progress."""
    failures, most = 0, progress()
    while True:
        try:
            return attempt()
        except _Break as error:
            failures = 1 if progress() - most >= _PROGRESS else failures + 1
            most = max(most, progress())
            if failures >= TRIES:
                raise ReadError(f'{error} ({TRIES} tries)') from None
            time.sleep(PAUSE * 2 ** (failures - 1))


def read_answer(url: str, limit: int = 16 << 20) -> bytes:
    """A short answer, such as the list of a bucket's objects.

    Raises:
        ReadError: there is none.
    """

    def attempt() -> bytes:
        with _opened(url, {}) as (response, _):
            try:
                text = response.read(limit + 1)
            except (http.client.HTTPException, OSError) as error:
                raise _Break(_of(error)) from None
        if len(text) > limit:
            raise ReadError(f'the server answers more than {_mb(limit)}')
        return text

    return _with_tries(attempt, lambda: 0)


class Partial:
    """A file on its way: what has arrived of it, and beside it what says whether more of it would fit."""

    def __init__(self, target: Path):
        self.path = target.with_name(f'.{target.name}.part')
        self._notes = target.with_name(f'.{target.name}.part.json')

    @property
    def size(self) -> int:
        """Bytes that have arrived."""
        with suppress(OSError):
            return self.path.stat().st_size
        return 0

    @property
    def notes(self) -> dict[str, Any]:
        """'url', 'validator', 'size' and 'checksums' of what has arrived; nothing if it cannot go on."""
        with suppress(OSError, ValueError):
            notes = json.loads(self._notes.read_text())
            if type(notes) is dict and notes.keys() == {'url', 'validator', 'size', 'checksums'}:
                return notes
        return {}

    def note(self, **notes: Any) -> None:
        """Keep the notes."""
        with writing(self._notes):
            self._notes.write_text(json.dumps(notes))

    def discard(self) -> None:
        """Leave nothing of it."""
        if self.path.is_dir():
            shutil.rmtree(self.path, ignore_errors=True)
        for path in (self.path, self._notes):
            with suppress(OSError):
                path.unlink()


def receive(url: str, part: Partial, size: int | None = None) -> list[str]:
    """Receive what is not there yet of a file.

    Args:
        url: of http or https.
        part: what has arrived of it before; all of it, afterwards.
        size: what it has to be, where that is known.

    Returns:
        The checksums of the whole file that the server states, as in a row of the table.

    Raises:
        ReadError: it cannot be received, or not be written. What has arrived stays there if it may go on.
    """
    whole = False
    try:
        checksums = _with_tries(lambda: _try(url, part), lambda: part.size)
        whole = True
    finally:
        if not whole and not part.notes:
            part.discard()
    if size is not None and part.size != size:
        have = part.size
        part.discard()
        raise ReadError(f'{have} bytes came, not {size}')
    return checksums


def _try(url: str, part: Partial) -> list[str]:
    """One try."""
    notes = part.notes
    if notes.get('url') != url:
        notes = {}
        part.discard()
    have = part.size
    if notes and have == notes['size']:
        return notes['checksums']
    headers = {'Range': f'bytes={have}-', 'If-Range': notes['validator']} if notes and have else {}
    try:
        with _opened(url, headers) as (response, checksums):
            have, total = _place(response, have, notes)
            _check_content(response)
            validator = _validator(response)
            with writing(part.path):
                free = shutil.disk_usage(part.path.parent).free
            if total is not None and total - have > free:
                where = str(part.path.parent)
                raise DiskError(f'{_mb(total - have)} are to come, {_mb(free)} are free in {where!r}')
            if not have:  # the server begins anew, as the file is another now or it cannot go on
                part.discard()
                if validator and total is not None:
                    part.note(url=url, validator=validator, size=total, checksums=checksums)
            _write(response, part, have, total, url)
            return checksums
    except _Stale:
        part.discard()
        raise


def _place(response: http.client.HTTPResponse, have: int, notes: dict[str, Any]) -> tuple[int, int | None]:
    """Where what comes begins in the file, and the size of the file."""
    length = response.headers.get('Content-Length', '')
    if response.status != 206:
        return 0, int(length) if length.isdecimal() else None
    unit, _, span = response.headers.get('Content-Range', '').partition(' ')
    first, _, total = span.partition('-')[0], *span.partition('/')[1:]
    if unit != 'bytes' or first != str(have) or total != str(notes.get('size')):
        raise _Stale('the server sends another part than the one asked for')
    return have, int(total)


def _check_content(response: http.client.HTTPResponse) -> None:
    if response.headers.get_content_type() == 'text/html':
        raise ReadError('a web page came in place of a file')
    if (encoding := response.headers.get('Content-Encoding', 'identity')) != 'identity':
        raise ReadError(f'it comes encoded as {short(encoding)!r}, which was not asked for')
    if response.length is None and not response.chunked:
        raise ReadError('the server does not say how long it is, so that a cut would not be seen')


def _validator(response: http.client.HTTPResponse) -> str | None:
    """What tells this state of the file from another; None if the server cannot send the rest of one."""
    if response.headers.get('Accept-Ranges') == 'none':
        return None
    tag = response.headers.get('ETag')
    return tag if tag and not tag.startswith('W/') else response.headers.get('Last-Modified')


def _write(response: http.client.HTTPResponse, part: Partial, have: int, total: int | None, url: str) -> None:
    said = _Said(url, have, total)
    try:
        with writing(part.path), open(part.path, 'ab' if have else 'wb') as file:
            while chunk := _next(response, have):
                file.write(chunk)
                have += len(chunk)
                said.update(have)
            file.flush()
            os.fsync(file.fileno())
    except DiskError:  # what fills the disk is of no use there
        part.discard()
        raise
    finally:
        said.end()
    if total is not None and have < total:
        raise _Break(f'the transfer broke after {_mb(have)} of {_mb(total)}')
    if total is not None and have > total:
        part.discard()
        raise ReadError(f'more came than the {_mb(total)} that the server stated')


def _next(response: http.client.HTTPResponse, have: int) -> bytes:
    try:
        return response.read1(_CHUNK)
    except (http.client.HTTPException, OSError) as error:
        raise _Break(f'the transfer broke after {_mb(have)}: {_of(error)}') from None


def _mb(count: int) -> str:
    return f'{count / 1e6:.1f} MB'


class _Said:
    """How far a download is: a line that is written over and over on a terminal, and one line elsewhere."""

    def __init__(self, url: str, have: int, total: int | None):
        self._total, self._at, self._start, self._had = total, 0.0, time.monotonic(), have
        self._terminal = sys.stderr is not None and sys.stderr.isatty()
        rest = f' from {_mb(have)} on' if have else ''
        size = '' if total is None else f', {_mb(total)}'
        print_log(f'downloading {url}{size}{rest}', logger='current')

    def update(self, have: int) -> None:
        """Show how much has arrived, five times a second at most."""
        now = time.monotonic()
        if self._terminal and now - self._at > 0.2:
            self._at = now
            speed = (have - self._had) / max(now - self._start, 1e-3)
            share = f'{have / self._total:4.0%} of {_mb(self._total)}' if self._total else _mb(have)
            print(f'\r{share}, {_mb(int(speed))}/s ', end='', file=sys.stderr, flush=True)

    def end(self) -> None:
        """Leave the line."""
        if self._terminal and self._at:
            print(file=sys.stderr, flush=True)
