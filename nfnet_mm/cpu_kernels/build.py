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
_SOURCES = [Path(__file__).with_name(name) for name in ('kernels.c', 'pointwise.c', 'winograd.c')]
_HEADER = Path(__file__).with_name('product.h')
# No -ffast-math: it would let NaNs pass unseen, and change how the whole process treats tiny numbers.
_FLAGS = ['-O3', '-march=native', '-fopenmp', '-fno-math-errno', '-fno-trapping-math', '-fPIC']
_SECONDS = 120  # for the compiler; it takes a second


@functools.cache
def library() -> ctypes.CDLL | None:
    """The kernels; None where there is no C compiler with OpenMP, or ``NFNET_MM_CPU_KERNELS=0`` is set."""
    return None if _off() else _built()[0]


def state() -> str:
    """In words whether the kernels work here, and if not, why."""
    if _off():
        return f'off ({SWITCH}={os.environ[SWITCH]})'
    found, why = _built()
    return 'work' if found else f'not available: {why}'


def _off() -> bool:
    return os.environ.get(SWITCH, '').lower() in ('0', 'false', 'off', 'no')


@functools.cache
def _built() -> tuple[ctypes.CDLL | None, str]:
    """The library, or why there is none."""
    try:
        runtime = _openmp_of_torch()
        ctypes.CDLL(runtime, mode=ctypes.RTLD_GLOBAL)  # so that both share one set of threads
        compiler = _compiler()
        key, cache = _key(compiler), _cache()
        for file in sorted(cache.glob(f'{key}-*.so')) if cache else ():
            if file.name == _name(key, file.read_bytes()):  # whole, which loading does not find out unharmed
                try:
                    return ctypes.CDLL(str(file)), ''
                except OSError:  # a folder from which nothing may be run, or a system of other libraries
                    cache = None
        with tempfile.TemporaryDirectory(prefix='nfnet_mm_', dir=cache) as folder:
            made = Path(folder, 'kernels.so')
            _compile(compiler, made)
            if cache:
                made = made.replace(cache / _name(key, made.read_bytes()))
            return ctypes.CDLL(str(made)), ''
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        # PyTorch's own operations do the same in more time: nothing that a user must do anything about
        print_log(f'no kernels of nfnet_mm for the CPU: {error}', 'current', logging.DEBUG)
        return None, str(error)


def _openmp_of_torch() -> str:
    """The file of the GNU OpenMP runtime that torch has loaded."""
    try:
        maps = os.fsdecode(Path('/proc/self/maps').read_bytes())
    except OSError:
        raise OSError('they are built on Linux only') from None
    paths = dict.fromkeys(line.split(maxsplit=5)[5] for line in maps.splitlines() if '/libgomp' in line)
    own = os.path.dirname(os.path.dirname(torch.__file__))
    for path in sorted(paths, key=lambda path: not path.startswith(own)):
        if path.endswith(' (deleted)'):
            raise OSError(f'{path}: start the program again')
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
    sources = [source.read_bytes() for source in (*_SOURCES, _HEADER)]
    told = (platform.machine(), processor and processor[0], compiler, version, _FLAGS, sources)
    return hashlib.sha256(repr(told).encode()).hexdigest()[:24]


def _name(key: str, content: bytes) -> str:
    return f'{key}-{hashlib.sha256(content).hexdigest()[:24]}.so'


def _cache() -> Path | None:
    """The folder in which compiled files are kept; None if this user has none that can be written to."""
    cache = Path(os.environ.get('XDG_CACHE_HOME') or '~/.cache')
    try:
        cache = cache.expanduser() / 'nfnet_mm'
        cache.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = cache.stat()
    except (OSError, RuntimeError):  # a home that is not there
        return None
    own = status.st_uid == os.getuid() and not status.st_mode & 0o022  # what others can write to is not to be loaded
    return cache if own and os.access(cache, os.W_OK | os.X_OK) else None


def _compile(compiler: list[str], file: Path) -> None:
    """Make the library."""
    parts = [file.with_name(f'{source.stem}.o') for source in _SOURCES]
    steps = [[*_FLAGS, '-c', str(source), '-o', str(part)] for source, part in zip(_SOURCES, parts)]
    # linked without -fopenmp: the runtime is to be torch's, which is loaded already
    for words in (*steps, ['-shared', *map(str, parts), '-o', str(file), '-lm']):
        command = [*compiler, *words, '-fno-fast-math']  # whatever else the compiler's own arguments say
        done = subprocess.run(command, capture_output=True, text=True, errors='replace', timeout=_SECONDS)
        if done.returncode:
            lines = done.stderr.strip().splitlines() or [f'exit status {done.returncode}']
            line = next((line for line in lines if 'error' in line), lines[0])
            raise OSError(f'{compiler[0]} cannot compile them: {line}')
