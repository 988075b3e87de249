"""The compiled kernels: built by the machine's C compiler when they are first needed, and kept for the next process."""

import ctypes
import functools
import hashlib
import logging
import os
import platform
import re
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

import torch
from mmengine.logging import print_log

SWITCH = 'NFNET_MM_CPU_KERNELS'
_SOURCE = Path(__file__).with_name('kernels.c')
# No -ffast-math: it would let NaNs pass unseen, and change how the whole process treats tiny numbers.
_FLAGS = ['-O3', '-march=native', '-fopenmp', '-fno-math-errno', '-fno-trapping-math', '-fPIC']
_SECONDS = 120  # for the compiler; it takes half a second


@functools.cache
def library() -> ctypes.CDLL | None:
    """The kernels; None where there is no C compiler with OpenMP, or ``NFNET_MM_CPU_KERNELS=0`` is set."""
    return None if os.environ.get(SWITCH) == '0' else _built()[0]


def state() -> str:
    """In words whether the kernels work here, and if not, why."""
    if os.environ.get(SWITCH) == '0':
        return f'off ({SWITCH}=0)'
    found, why = _built()
    return 'work' if found else f'not available: {why}'


@functools.cache
def _built() -> tuple[ctypes.CDLL | None, str]:
    """The library, or why there is none."""
    try:
        runtime = _openmp_of_torch()
        compiler = _compiler()
        file = _folder() / f'{_key(compiler)}.so'
        if not file.exists():
            _compile(compiler, file)
        ctypes.CDLL(runtime, mode=ctypes.RTLD_GLOBAL)  # so that both share one set of threads
        return ctypes.CDLL(str(file)), ''
    except (OSError, subprocess.SubprocessError) as error:
        why = str(error)
        # PyTorch's own operations do the same, in more time: nothing that a user must do anything about
        print_log(f'kernels for the CPU: {why}', 'current', logging.DEBUG)
        return None, why


def _openmp_of_torch() -> str:
    """The file of the GNU OpenMP runtime that torch has loaded."""
    try:
        maps = Path('/proc/self/maps').read_text()
    except OSError:
        raise OSError('they are built on Linux only') from None
    found = dict.fromkeys(re.findall(r'\S*/libgomp[^/\s]*$', maps, re.MULTILINE))
    own = os.path.dirname(os.path.dirname(torch.__file__))
    for path in sorted(found, key=lambda path: not path.startswith(own)):
        return path
    raise OSError('this torch does not use the GNU OpenMP runtime')


def _compiler() -> list[str]:
    for name in (os.environ.get('CC'), 'gcc', 'cc'):
        words = shlex.split(name or '')
        if words and shutil.which(words[0]):
            return words
    raise OSError('there is no C compiler (CC, gcc, cc)')


def _key(compiler: list[str]) -> str:
    """A name that changes with all that the compiled code depends on."""
    try:
        processor = re.search(r'^(flags|Features)\s*:.*$', Path('/proc/cpuinfo').read_text(), re.MULTILINE)
    except OSError:
        processor = None
    version = subprocess.run([*compiler, '--version'], capture_output=True, timeout=_SECONDS, check=True).stdout
    told = (platform.machine(), processor and processor[0], version, _FLAGS, _SOURCE.read_bytes())
    return hashlib.sha256(repr(told).encode()).hexdigest()[:24]


def _folder() -> Path:
    """Where the compiled file is kept: the user's cache, or, if that cannot be written, a folder of this process."""
    cache = Path(os.environ.get('XDG_CACHE_HOME') or '~/.cache').expanduser() / 'nfnet_mm'
    try:
        cache.mkdir(mode=0o700, parents=True, exist_ok=True)
        mine = not hasattr(os, 'getuid') or cache.stat().st_uid == os.getuid()
        if mine and os.access(cache, os.W_OK | os.X_OK):
            return cache
    except (OSError, RuntimeError):  # a home that is not there
        pass
    return _folder_of_process()


@functools.cache
def _folder_of_process() -> Path:
    return Path(tempfile.mkdtemp(prefix='nfnet_mm_'))


def _compile(compiler: list[str], file: Path) -> None:
    """Make the file, whole or not at all: other processes may be about to, too."""
    with tempfile.TemporaryDirectory(dir=file.parent) as folder:
        whole, part = Path(folder, file.name), Path(folder, 'kernels.o')
        # linked without -fopenmp: the runtime is to be torch's, which is loaded already
        for words in ([*_FLAGS, '-c', str(_SOURCE), '-o', str(part)], ['-shared', str(part), '-o', str(whole), '-lm']):
            done = subprocess.run([*compiler, *words], capture_output=True, text=True, timeout=_SECONDS)
            if done.returncode:
                line = (done.stderr.strip().splitlines() or [''])[0]
                raise OSError(f'{compiler[0]} cannot compile them: {line}')
        os.replace(whole, file)
