"""Read the arrays of an Orbax checkpoint, a folder, by the library that writes them.

It runs in a process of its own, on the CPU: JAX would otherwise take hold of a GPU of this one, and what the library
writes about a broken checkpoint, or a crash of it, does not come here. Nothing in a checkpoint is code: the files are
JSON, MessagePack and arrays.
"""

import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
from math import prod
from pathlib import Path

import numpy as np

from nfnet_mm.errors import short, some

from ..errors import ReadError, malformed

# What the library has written into the folder of a checkpoint, by its versions.
_MARKS = ('_METADATA', 'manifest.ocdbt', 'checkpoint')
_SEPARATOR = '|'  # in no name of Haiku's
_MAX_GROWTH = 50  # of arrays over their files: compressed weights take little less room than they are

Tree = dict[str, dict[str, np.ndarray]]


def find_checkpoint(folder: str | os.PathLike) -> Path | None:
    """The folder of a checkpoint: this one, or that in a step of Orbax's CheckpointManager.

    Raises:
        ReadError: it holds several steps.
    """
    for path in (Path(folder), Path(folder, 'default')):
        if any((path / mark).is_file() for mark in _MARKS):
            return path
    steps = [path.name for path in Path(folder).iterdir() if path.name.isdecimal() and find_checkpoint(path)]
    if steps:
        raise ReadError(f'a folder of checkpoints: name one in it, such as {max(steps, key=int)!r} of {some(steps)}')
    return None


def check_installed() -> None:
    """Raise a :class:`ReadError` with what to install if Orbax is not there."""
    if importlib.util.find_spec('orbax') is None or importlib.util.find_spec('orbax.checkpoint') is None:
        install = f'{sys.executable} -m pip install orbax-checkpoint'
        raise ReadError(f'it is an Orbax checkpoint, read by the library that writes them: {install}')


def read_orbax(folder: Path) -> tuple[Tree, Tree]:
    """The trees {module: {name: array}} of a checkpoint's ``params`` and ``state``; no others are read.

    Raises:
        ReadError: Orbax is not installed, the checkpoint is broken, or it holds no such trees.
    """
    check_installed()
    limit = _MAX_GROWTH * sum(file.stat().st_size for file in folder.rglob('*') if file.is_file())
    _check_arrays(folder, limit)
    with tempfile.TemporaryDirectory() as temporary:
        target = os.path.join(temporary, 'arrays.npz')
        process = Path(__file__).with_name('orbax_process')
        command = [sys.executable, str(process), str(folder.resolve()), target, str(limit)]
        done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, 'JAX_PLATFORMS': 'cpu'})
        if done.returncode:
            lines = done.stderr.strip().split('\n')
            said = [line for line in lines if re.match(r'[\w.]*(Error|Exception): ', line)] or lines
            reason = short(said[-1].replace(f'{folder.resolve()}{os.sep}', ''))
            raise ReadError(f'the Orbax checkpoint is not readable: {reason or done.returncode}')
        trees: dict[str, Tree] = {'params': {}, 'state': {}}
        with malformed('the Orbax checkpoint is malformed'), np.load(target, allow_pickle=False) as arrays:
            for key in arrays.files:
                kind, module, name = key.split(_SEPARATOR)
                trees[kind].setdefault(module, {})[name] = arrays[key]
    if not trees['params']:
        raise ReadError("the Orbax checkpoint holds no 'params'")
    return trees['params'], trees['state']


def _check_arrays(folder: Path, limit: int) -> None:
    """Hold each array that is a folder of files against its header: a file that is missing would be read as zeros."""
    total = 0
    for header in folder.rglob('.zarray'):
        array = header.parent
        with malformed(f'the header of {short(array.relative_to(folder))} is malformed'):
            fields = json.loads(header.read_text())
            shape, chunks = fields['shape'], fields['chunks']
            due = prod(-(-size // chunk) for size, chunk in zip(shape, chunks))
            total += prod(shape) * 4  # bytes of a float32
        there = sum(re.fullmatch(r'[\d.]+', file.name) is not None for file in array.rglob('*') if file.is_file())
        if there < due:
            raise ReadError(f'{due - there} of the {due} files of {short(array.relative_to(folder))} are missing')
    if total > limit:
        raise ReadError(f'its arrays take {total} bytes, its files {limit // _MAX_GROWTH}')
