"""Convert a file of weights; the new file is written whole or not at all."""

import os
from dataclasses import asdict, dataclass

import torch

from nfnet_mm import __version__
from nfnet_mm.errors import write_atomically
from nfnet_mm.models.layers.ws_conv import DIALECTS

from .errors import ConversionError, naming
from .formats.read import read_weights
from .formats.safetensors import write_safetensors
from .load import check_arch, find_arch, load_weights
from .names.timm import write_timm


@dataclass(frozen=True)
class Summary:
    """What was converted."""

    source: str  # 'deepmind', 'timm' or 'ours'
    family: str
    arch: str | None  # the variant's key in the table, None for one that it has not
    dialect: str
    parameters: int
    num_classes: int
    names: str  # the written keys are 'ours' or 'timm'

    def __str__(self) -> str:
        network = f'{self.family} {self.arch or "a variant without a name"}, {self.parameters:,} parameters'
        way = f'dialect {self.dialect}; from {self.source} to {self.names}'
        return f'{network}, {self.num_classes} classes, {way}'


def convert_file(
    source: str | os.PathLike,
    target: str | os.PathLike,
    arch: str | None = None,
    dialect: str | None = None,
    to: str = 'ours',
    force: bool = False,
) -> Summary:
    """Convert a classifier's weights from DeepMind's, timm's or our names to ours or timm's.

    Args:
        source: what :func:`~nfnet_mm.converters.load.load_weights` takes, a file, address or name; its kind is told
            from its content.
        target: the file to write, ``.pth`` ({'state_dict', 'meta'}) or ``.safetensors``. It is there whole or not at
            all.
        arch: the variant the weights have to be of; found from their shapes by default.
        dialect: 'authors' or 'timm', the one they were trained in; by default as
            :mod:`~nfnet_mm.converters.load` tells.
        to: the names to write, 'ours' or 'timm'.
        force: replace ``target`` if it exists.

    Raises:
        ConversionError: anything is wrong with the source, its weights or an argument; one line, and nothing is
            written.
        UserError: the target cannot be written.
    """
    source, target = os.fspath(source), os.fspath(target)
    _check_target(source, target, force)
    if dialect not in (None, *DIALECTS):
        raise ConversionError(f'dialect={dialect!r} must be one of {", ".join(DIALECTS)}')
    if to not in ('ours', 'timm'):
        raise ConversionError(f'to={to!r} must be ours or timm')
    weights = load_weights(source, dialect=dialect)
    with naming(source):
        layout = weights.classifier_layout()
        arch = find_arch(layout, weights.dialect) if arch is None else check_arch(layout, arch)
    state = write_timm(weights.state_dict, layout) if to == 'timm' else weights.state_dict
    classes = layout.num_classes or 0
    summary = Summary(weights.source, layout.family, arch, weights.dialect, layout.parameters, classes, to)
    meta = {k: v for k, v in asdict(summary).items() if v is not None} | {'nfnet_mm_version': __version__}
    if target.endswith('.pth'):
        write_atomically(target, lambda file: torch.save({'state_dict': state, 'meta': meta}, file))
    else:
        texts = {k: str(v) for k, v in meta.items()}
        write_atomically(target, lambda file: write_safetensors(state, texts, file))
    return summary


def write_one_file(source: str | os.PathLike, target: str | os.PathLike, force: bool = False) -> str:
    """Write the weights of a sharded run's checkpoint, whatever model they are of, into one file.

    Args:
        source: the folder.
        target: the file to write, ``.pth`` ({'state_dict'}) or ``.safetensors``.
        force: replace ``target`` if it exists.

    Returns:
        what was written, in a line.

    Raises:
        ConversionError: the folder is not whole, or the target exists.
        UserError: the target cannot be written.
    """
    source, target = os.fspath(source), os.fspath(target)
    _check_target(source, target, force)
    state = read_weights(source).state_dict or {}
    if target.endswith('.pth'):
        write_atomically(target, lambda file: torch.save({'state_dict': state}, file))
    else:
        write_atomically(target, lambda file: write_safetensors(state, {}, file))
    return f'no classifier of a family that is known: {len(state):,} tensors, written by the names that they have'


def _check_target(source: str, target: str, force: bool) -> None:
    """Say what would go wrong in the end before the work is done."""
    if not target.endswith(('.pth', '.safetensors')):
        raise ConversionError(f'{target!r} must end in .pth or .safetensors')
    folder = os.path.dirname(target) or '.'
    if not os.path.isdir(folder):
        raise ConversionError(f'the folder {folder!r} to write to does not exist')
    if os.path.isdir(target):
        raise ConversionError(f'{target!r} is a folder')
    if os.path.exists(target) and os.path.exists(source) and os.path.samefile(source, target):
        raise ConversionError(f'{target!r} is the source itself')
    if os.path.exists(target) and not force:
        raise ConversionError(f'{target!r} exists; --force replaces it')
