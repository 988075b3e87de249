"""A file of weights to a file of weights, all or nothing."""

import os
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import BinaryIO

import torch

from nfnet_mm import __version__
from nfnet_mm.models.layers.ws_conv import DIALECTS

from .errors import ConversionError
from .formats.safetensors import write_safetensors
from .layout import describe
from .load import check_arch, find_arch, load_weights
from .names.timm import to_timm

SUFFIXES = ('.pth', '.safetensors')


@dataclass(frozen=True)
class Summary:
    """What was converted."""

    source: str  # 'deepmind', 'timm' or 'ours'
    family: str
    arch: str | None  # the variant's name, None for one that the table has not
    dialect: str
    parameters: int
    num_classes: int
    names: str  # the written keys are 'ours' or 'timm'

    def __str__(self) -> str:
        arch = self.arch or 'a variant without a name'
        return (
            f'{self.family} {arch}, {self.parameters:,} parameters, {self.num_classes} classes, '
            f'dialect {self.dialect}; from {self.source} to {self.names}'
        )


def convert_file(
    source: str, target: str, arch: str | None = None, dialect: str | None = None, to: str = 'ours', force: bool = False
) -> Summary:
    """Convert a classifier's weights from DeepMind's, timm's or our names to ours or timm's.

    Args:
        source: What :func:`~nfnet_mm.converters.load.load_weights` reads; its kind is told from its content.
        target: The file to write, ``.pth`` ({'state_dict', 'meta'}) or ``.safetensors``. It is there whole or not at
            all.
        arch: The variant the weights have to be of; found from their shapes by default.
        dialect: 'authors' or 'timm', the one they were trained in; by default as
            :mod:`~nfnet_mm.converters.load` tells.
        to: The names to write, 'ours' or 'timm'.
        force: Replace ``target`` if it exists.

    Raises:
        ConversionError: Anything is wrong with a file, its weights or an argument; one line, and nothing is written.
    """
    _check_target(source, target, force)
    if dialect not in (None, *DIALECTS):
        raise ConversionError(f'dialect={dialect!r} must be one of {", ".join(DIALECTS)}')
    if to not in ('ours', 'timm'):
        raise ConversionError(f'to={to!r} must be ours or timm')
    weights = load_weights(source)
    try:
        layout = describe(weights.state_dict)
        dialect = dialect or weights.dialect
        arch = arch or find_arch(layout, dialect)
        if arch is not None:
            check_arch(weights.state_dict, layout, arch)
        state = to_timm(weights.state_dict) if to == 'timm' else weights.state_dict
    except ConversionError as error:
        raise type(error)(f'{source!r}: {error}') from None
    summary = Summary(weights.source, layout.family, arch, dialect, layout.parameters, layout.num_classes, to)
    meta = {k: v for k, v in asdict(summary).items() if v is not None} | {'nfnet_mm_version': __version__}
    if target.endswith('.pth'):
        write_atomically(target, lambda file: torch.save({'state_dict': state, 'meta': meta}, file))
    else:
        texts = {k: str(v) for k, v in meta.items()}
        write_atomically(target, lambda file: write_safetensors(state, texts, file))
    return summary


def _check_target(source: str, target: str, force: bool) -> None:
    """Say what would go wrong in the end before the work is done."""
    if not target.endswith(SUFFIXES):
        raise ConversionError(f'{target!r} must end in {" or ".join(SUFFIXES)}')
    folder = os.path.dirname(target) or '.'
    if not os.path.isdir(folder):
        raise ConversionError(f'the folder {folder!r} to write to does not exist')
    if os.path.isdir(target):
        raise ConversionError(f'{target!r} is a folder')
    if os.path.exists(target) and os.path.exists(source) and os.path.samefile(source, target):
        raise ConversionError(f'{target!r} is the source itself')
    if os.path.exists(target) and not force:
        raise ConversionError(f'{target!r} exists; --force replaces it')


def write_atomically(target: str, write: Callable[[BinaryIO], None]) -> None:
    """Write a file so that it is there whole or not at all, after a crash too.

    Args:
        target: Its path; what is there is replaced.
        write: Writes the content to a file opened for binary writing.

    Raises:
        ConversionError: It cannot be written.
    """
    folder = os.path.dirname(target) or '.'
    try:
        handle, temporary = tempfile.mkstemp(dir=folder, prefix=f'.{os.path.basename(target)}.', suffix='.tmp')
        try:
            with os.fdopen(handle, 'wb') as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            umask = os.umask(0)
            os.umask(umask)
            os.chmod(temporary, 0o666 & ~umask)  # mkstemp lets only the owner read
            os.replace(temporary, target)
        finally:
            if os.path.exists(temporary):
                os.unlink(temporary)
        directory = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as error:
        raise ConversionError(f'{target!r} was not written: {error.strerror or error}') from None
