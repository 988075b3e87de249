"""Downloads from a server on this machine: what goes wrong ends in one line and leaves no half file."""

import base64
import fcntl
import hashlib
import io
import multiprocessing
import os
import pty
import re
import resource
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from nfnet_mm.converters import ReadError, local_file
from nfnet_mm.converters.formats.safetensors import write_safetensors
from nfnet_mm.converters.hub import cache_folder, download
from tests.converters.web import Web, file, raw, redirect, silence, status

FORK = multiprocessing.get_context('fork')
MB = 1 << 20


def made(floats, seed=0):
    """A file of safetensors."""
    out = io.BytesIO()
    write_safetensors({'a': torch.rand(floats, generator=torch.Generator().manual_seed(seed))}, {}, out)
    return out.getvalue()


GOOD = made(10_000)  # 40 kB
LARGE = made(MB)  # 4 MB, more than what counts as progress
SHA = hashlib.sha256(GOOD).hexdigest()
RELEASE = '/rwightman/pytorch-image-models/releases/download/v0.1-weights/nf_resnet50_ra2-{}.pth'


@pytest.fixture(autouse=True)
def impatient(cache, monkeypatch):
    monkeypatch.setattr(download, 'TIMEOUT', 0.4)


def kept(cache):
    """Names of the files in the cache, first those that are in sight, then the hidden ones."""
    names = [path.name for path in sorted(cache.rglob('*')) if path.is_file() and not path.name.endswith('.lock')]
    return [n for n in names if n[0] != '.'], [n for n in names if n[0] == '.']


def lfs(_):
    return b'version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n'


# name: (what the server answers, words of the message, whether what arrived may be kept to go on with)
FAULTS = {
    'not found': ([status(404)], 'the server answers 404 Not Found', False),
    'forbidden': ([status(403)], 'the server answers 403 Forbidden', False),
    'broken server': ([status(500)], r'the server answers 500 Internal Server Error \(4 tries\)', False),
    'busy server': ([status(503)], r'the server answers 503 Service Unavailable \(4 tries\)', False),
    'no HTTP': ([raw(b'SSH-2.0-OpenSSH_9.2\r\n')], r'SSH-2\.0-OpenSSH_9\.2.* \(4 tries\)', False),
    'hangs up': ([raw(b'')], r'closed connection.* \(4 tries\)', False),
    'silent': ([silence(1)], r'the server was silent for 0\.4 s \(4 tries\)', False),
    'silent in the middle': (
        [file(GOOD, cut=20_000, hold=1)],
        r'the transfer broke after 0\.0 MB: the server was silent for 0\.4 s \(4 tries\)',
        True,
    ),
    'cut each time': ([file(GOOD, cut=20_000, ranges=False)], r'broke after 0\.0 MB of 0\.0 MB \(4 tries\)', True),
    'cut, cannot go on': ([file(GOOD, None, cut=20_000)], r'broke after 0\.0 MB of 0\.0 MB \(4 tries\)', False),
    'cut in chunks': (
        [raw(b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nETag: "1"\r\n\r\n8\r\n' + GOOD[:8] + b'\r\n40\r\nab')],
        r'the transfer broke after 0\.0 MB: .*\(4 tries\)',
        False,
    ),
    'no length': ([raw(b'HTTP/1.0 200 OK\r\n\r\n' + GOOD)], 'the server does not say how long it is', False),
    'compressed': ([file(GOOD, Content_Encoding='gzip')], "it comes encoded as 'gzip'", False),
    'web page': ([file(b'<html>Log in</html>', Content_Type='text/html; charset=utf-8')], 'a web page came', False),
    'web page in disguise': ([file(b'<!DOCTYPE html><html>')], "it is text, beginning '<!DOCTYPE html>", False),
    'Git LFS pointer': ([file(lfs(None))], "it is text, beginning 'version https://'", False),
    'a picture': ([file(b'\xff\xd8\xff\xe0' + bytes(100))], 'it begins with ff d8 ff e0', False),
    'empty': ([file(b'')], 'the file is empty', False),
    'more than the disk holds': ([file(GOOD, Content_Length=10**18)], r'1000000000000\.0 MB are to come, ', False),
    'checksum of the server': (
        [file(GOOD, x_goog_hash='crc32c=AAAAAA==,md5=' + base64.b64encode(bytes(16)).decode())],
        f'its md5 is {hashlib.md5(GOOD).hexdigest()}, and not {"0" * 32}',
        False,
    ),
    'endless redirections': ([redirect('/a.pth')], 'the server answers 302 .*infinite loop', False),
    'redirected to a file': ([redirect('file:///etc/passwd')], 'the server answers 302 .*is not allowed', False),
    'redirected to FTP': ([redirect('ftp://127.0.0.1/a')], "it is redirected from http to 'ftp://127.0.0.1/a'", False),
}


@pytest.mark.parametrize('name', FAULTS)
def test_faults_of_the_server(name, web, cache):
    answers, words, may_stay = FAULTS[name]
    url = web.serve('/a.pth', *answers)
    with pytest.raises(ReadError, match=words) as caught:
        local_file(url)
    assert '\n' not in str(caught.value) and str(caught.value).startswith(f'{url!r} was ')
    assert kept(cache) == ([], ['.a.pth.part', '.a.pth.part.json'] if may_stay else [])
    web.serve('/a.pth', file(GOOD, '"2"'))  # and it does not stand in the way of the next try
    assert Path(local_file(url)).read_bytes() == GOOD and kept(cache) == (['a.pth', 'a.pth.json'], [])


def closed_port():
    with socket.socket() as it:
        it.bind(('127.0.0.1', 0))
        return it.getsockname()[1]


# address: words of the message
ADDRESSES = {
    f'http://127.0.0.1:{closed_port()}/a.pth': r'refused; it can be put at .*/127\.0\.0\.1_\d+/a\.pth. by hand',
    'http://nowhere.invalid/a.pth': 'Name or service not known; it can be put at .*/nowhere.invalid/a.pth. by hand',
    'http://127.0.0.1:port/a.pth': 'it is no address of a file',
    'http://127.0.0.1/a b.pth': 'it is no address of a file',
    'http:///a.pth': 'no host given',
    'http://[::1/a.pth': 'is no address: Invalid IPv6 URL',
    'http://127.0.0.1/': 'is no address of a file',
    'http://127.0.0.1/folder/': 'is no address of a file',
    's3://bucket/a.pth': 'downloads are by http:// or https://, not s3://',
    'file:///etc/passwd': 'downloads are by http:// or https://, not file://',
}


@pytest.mark.parametrize('url', ADDRESSES, ids=lambda url: re.sub(r'\d{5}', 'PORT', url))
def test_addresses_that_lead_nowhere(url, cache, monkeypatch):
    real = socket.getaddrinfo

    def getaddrinfo(host, *args, **kwargs):  # without asking a name server
        if host == 'nowhere.invalid':
            raise socket.gaierror(socket.EAI_NONAME, 'Name or service not known')
        return real(host, *args, **kwargs)

    monkeypatch.setattr(socket, 'getaddrinfo', getaddrinfo)
    start = time.monotonic()
    with pytest.raises(ReadError, match=ADDRESSES[url]) as caught:
        local_file(url)
    assert '\n' not in str(caught.value) and kept(cache) == ([], [])
    assert time.monotonic() - start < 1  # no tries where there is no network


def test_it_goes_on_where_it_stopped(web, cache):
    url = web.serve('/a.pth', file(LARGE, cut=3 * MB), status(502), file(LARGE))
    assert Path(local_file(url)).read_bytes() == LARGE
    assert web.ranges('/a.pth') == [None, f'bytes={3 * MB}-', f'bytes={3 * MB}-']


def test_beginning_anew_is_no_progress(web, cache):
    """A server that cannot go on, and stops now earlier, now later, is given up."""
    early, late = (file(LARGE, cut=cut, ranges=False) for cut in (MB // 2, 3 * MB))
    url = web.serve('/a.pth', *[early, late] * 20)
    with pytest.raises(ReadError, match=r'\(4 tries\)'):
        local_file(url)
    assert len(web.requests) <= 6


def test_progress_is_never_given_up(web):
    cuts = [file(LARGE, cut=len(LARGE) * k // 3) for k in (1, 2)]
    url = web.serve('/a.pth', *[status(500)] * 3, cuts[0], *[status(500)] * 2, cuts[1], status(500), file(LARGE))
    assert Path(local_file(url)).read_bytes() == LARGE


@pytest.mark.parametrize('second', ['ignores ranges', 'file has changed', 'file is shorter now', 'sends another part'])
def test_it_begins_anew_where_it_has_to(second, web, cache):
    short = made(3_000, seed=1)
    other = made(10_000, seed=1)
    wrong = f'HTTP/1.1 206 Partial Content\r\nContent-Length: 5\r\nContent-Range: bytes 0-4/{len(GOOD)}\r\n\r\n12345'
    then, content = {
        'ignores ranges': ([file(GOOD, ranges=False)], GOOD),
        'file has changed': ([file(other, '"2"')], other),
        'file is shorter now': ([status(416), file(short, '"2"')], short),
        'sends another part': ([raw(wrong.encode()), file(GOOD)], GOOD),
    }[second]
    url = web.serve('/a.pth', file(GOOD, cut=20_000), *then)
    assert Path(local_file(url)).read_bytes() == content
    assert web.ranges('/a.pth')[:2] == [None, 'bytes=20000-']
    assert kept(cache) == (['a.pth', 'a.pth.json'], [])


def test_a_date_will_do_where_there_is_no_tag(web):
    date = 'Wed, 01 May 2024 10:00:00 GMT'
    cut, whole = (file(GOOD, date, cut=stop, ETag='W/"1"', Last_Modified=date) for stop in (20_000, None))
    url = web.serve('/a.pth', cut, whole)
    assert Path(local_file(url)).read_bytes() == GOOD and web.ranges('/a.pth') == [None, 'bytes=20000-']


def test_checksums(web, cache):
    """timm's in the name of a release, Hugging Face's beside a redirection, Google's: held against what came."""
    wrong = web.serve(RELEASE.format('0' * 8), file(GOOD))
    with pytest.raises(ReadError, match=f'was downloaded and not kept: its sha256 is {SHA}, and not 00000000$'):
        local_file(wrong)
    url = web.serve('/x/resolve/main/a.safetensors', redirect('/cdn', X_Linked_ETag=f'"{"0" * 64}"'))
    web.serve('/cdn', file(GOOD))
    with pytest.raises(ReadError, match=f'its sha256 is {SHA}, and not {"0" * 64}$'):
        local_file(url)
    assert kept(cache) == ([], [])
    local_file(web.serve(RELEASE.format(SHA[:8]), file(GOOD)))
    web.serve('/x/resolve/main/a.safetensors', redirect('/cdn', X_Linked_ETag=f'"{SHA}"'))
    local_file(url)
    google = base64.b64encode(hashlib.md5(GOOD).digest()).decode()
    local_file(web.serve('/b.pth', file(GOOD, x_goog_hash=f'md5={google}')))
    assert len(kept(cache)[0]) == 6


def test_what_is_not_known_is_said_once_recorded_and_compared(web, cache, log_lines):
    url = web.serve('/a.pth', file(GOOD))
    path = Path(local_file(url))
    assert f'downloading {url}, 0.0 MB' in log_lines()
    assert f'no checksum of {url} is known: its sha256, {SHA}, is recorded in ' in log_lines()
    said = log_lines()
    web.close()
    assert local_file(url) == str(path) and log_lines() == said  # without the network
    os.utime(path)  # touched and the same
    assert local_file(url) == str(path) and log_lines() == said
    path.write_bytes(made(10_000, seed=1))
    words = rf'a\.pth. is not {url}: its sha256 is \w+, not {SHA} as at its first download'
    with pytest.raises(ReadError, match=words):
        local_file(url)


def test_a_file_that_was_replaced_by_its_publisher(web, cache):
    other = made(10_000, seed=1)
    url = web.serve('/a.pth', file(GOOD), file(other))
    path = Path(local_file(url))
    path.unlink()
    words = rf"not {SHA} as at its first download: if a new one was published, delete '(.*)'"
    with pytest.raises(ReadError, match=words) as caught:
        local_file(url)
    assert kept(cache) == (['a.pth.json'], [])
    Path(re.search(words, str(caught.value))[1]).unlink()
    assert Path(local_file(url)).read_bytes() == other


def test_a_file_that_was_put_there_by_hand(cache, log_lines):
    url = f'http://127.0.0.1:{closed_port()}{RELEASE.format(SHA[:8])}'
    with pytest.raises(ReadError) as caught:
        local_file(url)
    path = Path(re.search(r"put at '(.*)' by hand", str(caught.value))[1])
    path.write_bytes(GOOD)
    assert local_file(url) == str(path) and 'no checksum' not in log_lines()
    path.write_bytes(GOOD[:-1])
    with pytest.raises(ReadError, match=f'its sha256 is .*, and not {SHA[:8]}$'):
        local_file(url)


def test_a_folder_that_cannot_be_written(web, cache, log_lines):
    url = web.serve('/a.pth', file(GOOD))
    cache.parent.mkdir(parents=True)
    cache.write_text('')  # a file in its place: root may write into any folder
    with pytest.raises(ReadError, match=r"nfnet_mm/127.*' cannot be written: .*; TORCH_HOME names another folder"):
        local_file(url)
    cache.unlink()
    path = Path(local_file(url))
    record = path.with_name('a.pth.json')
    record.unlink()
    record.mkdir()  # a record that cannot be written is no reason to stop
    assert local_file(url) == str(path) and 'is not held against it the next time' in log_lines()


def test_addresses_are_kept_apart(web, cache):
    paths = [
        local_file(web.serve(path, file(GOOD))) for path in ('/a/x.pth', '/b/x.pth', '/a/x.pth?v=1', '/a/x.pth?v=2')
    ]
    assert len(set(paths)) == 4 and all(path.startswith(str(cache_folder())) for path in paths)
    for path in ('/%2e%2e/%2e%2e/%2e%2e/x.pth', '/a/..%2f..%2f..%2f..%2fx.pth'):
        assert Path(local_file(web.serve(path, file(GOOD)))).resolve().is_relative_to(cache_folder().resolve())


def test_chunks_are_whole_when_their_end_comes(web):
    body = b''.join(b'%x\r\n%b\r\n' % (len(part), part) for part in (GOOD[:99], GOOD[99:], b''))
    url = web.serve('/a.pth', raw(b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n' + body))
    assert Path(local_file(url)).read_bytes() == GOOD


def work(pipe, url, limit, terminal):
    """What another process does: download, and send (path, what went wrong)."""
    if limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    if terminal:
        sys.stderr = open(terminal, 'w')  # noqa: SIM115
    download.TIMEOUT = 30
    try:
        pipe.send((local_file(url), None))
    except (ReadError, KeyboardInterrupt) as error:
        pipe.send((None, f'{type(error).__name__}: {error}'))


def start(url, limit=None, terminal=None):
    """(another process, its end of the pipe)"""
    ours, theirs = FORK.Pipe()
    process = FORK.Process(target=work, args=(theirs, url, limit, terminal), daemon=True)
    process.start()
    theirs.close()
    return process, ours


def wait_for(condition):
    for _ in range(1000):
        if condition():
            return
        time.sleep(0.02)
    raise AssertionError('it did not happen in 20 s')


def test_a_full_disk(web, cache):
    _, pipe = start(web.serve('/a.pth', file(LARGE)), limit=MB)
    path, error = pipe.recv()
    assert path is None and "a.pth.part' cannot be written: File too large; TORCH_HOME names" in error
    assert '\n' not in error and kept(cache) == ([], [])


def test_ctrl_c_and_a_kill_leave_what_arrived_and_no_lock(web, cache):
    url = web.serve('/a.pth', file(LARGE, cut=MB, hold=60), file(LARGE, cut=2 * MB, hold=60), file(LARGE))
    part = cache / web.url.removeprefix('http://').replace(':', '_') / '.a.pth.part'
    for i, sign in enumerate((signal.SIGINT, signal.SIGKILL), 1):
        process, _ = start(url)
        wait_for(lambda: part.exists() and part.stat().st_size >= i * MB - (1 << 18))  # noqa: B023
        os.kill(process.pid, sign)
        process.join(30)
        assert kept(cache) == ([], ['.a.pth.part', '.a.pth.part.json'])
    assert Path(local_file(url)).read_bytes() == LARGE
    assert len(web.requests) == 3 and None not in web.ranges('/a.pth')[1:]


def test_several_processes_download_once(web):
    url = web.serve('/a.pth', file(LARGE, cut=MB, hold=0.5))
    pipes = [start(url)[1] for _ in range(4)]
    paths = {pipe.recv() for pipe in pipes}
    ((path, error),) = paths
    assert error is None and Path(path).read_bytes() == LARGE and len(web.requests) == 1


def test_who_waits_says_so(web, cache, log_lines):
    url = web.serve('/a.pth', file(GOOD))
    folder = cache / web.url.removeprefix('http://').replace(':', '_')
    folder.mkdir(parents=True)
    with open(folder / '.a.pth.lock', 'w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        threading.Timer(0.3, fcntl.flock, (lock, fcntl.LOCK_UN)).start()
        assert Path(local_file(url)).read_bytes() == GOOD
    assert f'waiting for another process that downloads {url}' in log_lines()


def test_a_terminal_shows_how_far_it_is(web):
    ours, theirs = pty.openpty()
    _, pipe = start(web.serve('/a.pth', file(LARGE, cut=MB, hold=0.5)), terminal=os.ttyname(theirs))
    assert pipe.recv()[1] is None
    shown = os.read(ours, 10_000).decode()
    os.close(theirs)
    os.close(ours)
    assert re.search(r'\r *\d+% of 4\.2 MB, \d+\.\d MB/s', shown) and shown.endswith('\r\n')


def test_never_out_of_encryption(web, tmp_path, monkeypatch):
    key, certificate = tmp_path / 'key.pem', tmp_path / 'certificate.pem'
    try:
        subprocess.run(
            ['openssl', 'req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '1']
            + ['-subj', '/CN=127.0.0.1', '-addext', 'subjectAltName=IP:127.0.0.1', '-keyout', key, '-out', certificate],
            check=True,
            capture_output=True,
        )
    except FileNotFoundError:
        pytest.skip('openssl makes the certificate of the server')
    secure = Web()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    secure.server.socket = context.wrap_socket(secure.server.socket, server_side=True)
    address = secure.serve('/a.pth', redirect(web.serve('/b.pth', file(GOOD)))).replace('http:', 'https:')
    with pytest.raises(ReadError, match='certificate verify failed'):
        local_file(address)
    monkeypatch.setenv('SSL_CERT_FILE', str(certificate))
    with pytest.raises(ReadError, match=r"it is redirected from https to 'http://127\.0\.0\.1:\d+/b\.pth'"):
        local_file(address)
    secure.serve('/a.pth', file(GOOD))
    assert Path(local_file(address)).read_bytes() == GOOD
    secure.close()


def test_at_least_twenty_faults():
    assert len(FAULTS) + len(ADDRESSES) >= 30 and threading.active_count() < 50
