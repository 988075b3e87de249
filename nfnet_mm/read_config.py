"""Read a config file, or say in one line where in it, or in which of its bases, something is wrong."""

import os
import traceback
from pathlib import Path
from types import TracebackType

from mmengine import Config

from nfnet_mm.errors import UserError, nearest_files
from nfnet_mm.named_configs import bases_by_import_name


def read_config(path: str | os.PathLike) -> Config:
    """A config file with what it inherits.

    Args:
        path: an existing file.

    Raises:
        UserError: it does not load. The line names the file, of several the one that is wrong, and the place in it.
    """
    if os.fspath(path).endswith(('.pth', '.npz', '.safetensors')):
        raise UserError(f'config {os.fspath(path)!r} is a file of weights: the config comes first, then the checkpoint')
    try:
        with bases_by_import_name():
            return Config.fromfile(os.fspath(path))
    except UserError:  # of a type of ours that the config builds itself
        raise
    except Exception as error:  # a config is a program: anything can go wrong in it
        where, line = (Path(path), None) if isinstance(error, FileNotFoundError) else _place(error, Path(path))
        places = [f'line {line}'] if line else []
        places += [] if os.path.abspath(where) == os.path.abspath(path) else [repr(os.path.normpath(where))]
        at = places and f' ({" of ".join(places)})'
        raise UserError(f'config {os.fspath(path)!r} does not load: {_reason(error)}{at or ""}') from error


def _reason(error: Exception) -> str:
    if isinstance(error, SyntaxError):  # mmengine adds a file and a line to some of these, and not to others
        return f'{type(error).__name__}: {error.msg.partition(" (<unknown>")[0].rpartition(".py: ")[2]}'
    if isinstance(error, FileNotFoundError) and error.filename:
        folder, names = nearest_files(error.filename)
        near = f' (in {str(folder)!r} there is {", ".join(map(repr, names))})' if names else ''
        return f'there is no file {os.path.normpath(error.filename)!r}{near}'
    # mmengine lists the whole sys.path under an import that failed
    text = ' '.join(str(error).partition(', the current sys.path is')[0].split())
    cause = f' ({error.__cause__})' if isinstance(error, ImportError) and error.__cause__ else ''
    return f'{type(error).__name__}: {text}{cause}'


def _place(error: Exception, path: Path) -> tuple[Path, int | None]:
    """(file, line) of what went wrong: in a config, or in a module that it imports; no line if it is not known."""
    where, line = path, None
    step: TracebackType | None = error.__traceback__
    for frame, lineno in traceback.walk_tb(step.tb_next if step else None):  # without our own call
        file = frame.f_code.co_filename
        if frame.f_code.co_name in ('_file2dict', '_parse_lazy_import') and 'filename' in frame.f_locals:
            where, line = Path(str(frame.f_locals['filename'])), None  # mmengine begins with another config
        elif os.path.isfile(file) and not _is_library(file):
            where, line = Path(file), lineno
    if isinstance(error, SyntaxError):
        if error.filename and os.path.isfile(error.filename):  # in a module
            where = Path(error.filename)
        line = error.lineno or (error.__context__.lineno if isinstance(error.__context__, SyntaxError) else None)
    return where, line


def _is_library(file: str) -> bool:
    """Whether a place in a file says nothing to whoever wrote the config; the configs of the frameworks do."""
    return file.startswith(os.path.dirname(os.__file__)) or ('site-packages' in file and '.mim' not in file)
