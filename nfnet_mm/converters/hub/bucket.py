"""Download a folder of a bucket of Google's storage, such as an Orbax checkpoint: its files, one by one."""

import json
import re
from base64 import b64decode
from pathlib import Path
from urllib.parse import quote, urlencode, urlsplit

from nfnet_mm.errors import short

from ..errors import ReadError, malformed
from .checksum import has_checksum
from .download import Partial, read_answer, receive, writing

_MAX_OBJECTS = 100_000  # NFNet-F3 has some 2,000 files where each array is one


def download_folder(url: str, folder: Path) -> None:
    """Receive what is not there yet of a folder.

    The list of its files, with their sizes and checksums, is asked for first, as
    https://cloud.google.com/storage/docs/json_api/v1/objects/list tells; each file is held against it.

    Args:
        url: ``https://storage.googleapis.com/BUCKET/PREFIX/``.
        folder: to write into; files that are there and right stay.

    Raises:
        ReadError: the list or a file cannot be received, or is not what the list says. What has arrived stays.
    """
    parts = urlsplit(url)
    bucket, _, prefix = parts.path.lstrip('/').partition('/')
    root = f'{parts.scheme}://{parts.netloc}'
    for name, (size, checksum) in sorted(_objects(f'{root}/storage/v1/b/{bucket}/o', prefix).items()):
        path = folder / name
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_file() and path.stat().st_size == size and has_checksum(path, checksum):
            continue
        part = Partial(path)
        receive(f'{root}/{bucket}/{quote(prefix + name)}', part, size)
        if not has_checksum(part.path, checksum):
            part.discard()
            raise ReadError(f'its file {short(name)!r} has another checksum than the list of the bucket states')
        with writing(path):
            part.path.replace(path)
        part.discard()


def _objects(address: str, prefix: str) -> dict[str, tuple[int, str]]:
    """(size, checksum) of the files in the bucket, by their names behind the prefix."""
    found: dict[str, tuple[int, str]] = {}
    page: dict[str, str] = {}
    while True:
        query = dict(prefix=prefix, fields='items(name,size,md5Hash),nextPageToken', **page)
        with malformed('the list of the files in the bucket is malformed'):
            answer = json.loads(read_answer(f'{address}?{urlencode(query)}'))
            for entry in answer.get('items', ()):
                name = entry['name'].removeprefix(prefix)
                if not name or name.endswith('/'):  # how some tools mark a folder
                    continue
                if not entry['name'].startswith(prefix) or not _inside(name):
                    raise ReadError(f'the bucket lists {short(entry["name"])!r}, which is not inside the folder')
                digest = b64decode(entry['md5Hash'], validate=True).hex()
                found[name] = int(entry['size']), f'md5:{digest}'
        if not answer.get('nextPageToken') or len(found) > _MAX_OBJECTS:
            break
        page = dict(pageToken=answer['nextPageToken'])
    if not found or len(found) > _MAX_OBJECTS:
        raise ReadError(f'the bucket lists {len(found)} files in {prefix!r}')
    return found


def _inside(name: str) -> bool:
    """Whether a name stays inside the folder that it is joined to."""
    return not re.search(r'[\\\0]', name) and all(part not in ('', '.', '..') for part in name.split('/'))
