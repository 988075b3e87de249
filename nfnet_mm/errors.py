"""The one-line user error and what it is made of: near names, checked numbers and files; files written whole."""

import difflib
import math
import numbers
import os
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, BinaryIO


class UserError(ValueError):
    """Something the user named is wrong. The tools print it as one line and exit with status 2.

    From a data loader's worker torch passes it on as the text of its traceback, of which only the message is kept.

    Attributes:
        of_one_process: of several processes this one alone may have met it, and says so itself.
    """

    of_one_process = False

    def __init__(self, *args: Any) -> None:
        if args and str(args[0]).startswith('Caught ') and 'DataLoader worker' in str(args[0]):
            self.of_one_process = True
            args = (str(args[0]).rstrip().rpartition(f'{type(self).__name__}: ')[2], *args[1:])
        super().__init__(*args)


class DivergedError(UserError, FloatingPointError):
    """A training cannot go on: its gradients or weights are not finite, or about to be."""


def some(names: Iterable[str], limit: int = 6) -> str:
    """The first names, and how many more there are.

    >>> some(['b', 'a', 'c'], limit=2)
    'a, b and 1 more'
    """
    names = sorted(names)
    more = f' and {len(names) - limit} more' if len(names) > limit else ''
    return ', '.join(short(name) for name in names[:limit]) + more


def short(text: object) -> str:
    r"""One line of at most 100 characters, whatever is in a text, a number or an exception.

    >>> short('a\nb' * 200)  # doctest: +ELLIPSIS
    'a?ba?b...'
    """
    line = ''.join(c if c.isprintable() else '?' for c in str(text)[:400])
    return line if len(line) <= 100 else line[:97] + '...'


def did_you_mean(name: object, known: Iterable[object], count: int = 1, cutoff: float = 0.6) -> str:
    """`` Did you mean 'x'?`` with the nearest of the known names, upper and lower case being the same; else nothing.

    >>> did_you_mean('GELU', ['gelu', 'relu']), did_you_mean('swish', ['gelu', 'relu'])
    (" Did you mean 'gelu'?", '')
    """
    spelling = {str(one).lower(): str(one) for one in known}
    near = difflib.get_close_matches(str(name).lower(), spelling, n=count, cutoff=cutoff)
    return f' Did you mean {" or ".join(repr(spelling[one]) for one in near)}?' if near else ''


def is_integer(value: Any) -> bool:
    """Whether a value is an integer, NumPy's too, and not True or False."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def check_positive(name: str, value: Any) -> int:
    """The value, a positive integer.

    Raises:
        UserError: it is none.
    """
    if not is_integer(value) or not 1 <= value < 2**31:
        raise UserError(
            f'{name}={value!r} must be a positive integer{" below 2**31" * (is_integer(value) and value > 0)}'
        )
    return int(value)


def check_number(name: str, value: Any, interval: str, hint: str = '') -> float:
    """The value, a finite number in an interval such as ``'[0, 1)'`` or ``'(0, inf)'``.

    Args:
        name: what to call it in the message.
        value: what the user gave.
        interval: its bounds; a round bracket leaves the bound out.
        hint: what the message ends with.

    Raises:
        UserError: it is no number, or outside.

    >>> check_number('rate', 0.5, '[0, 1)')
    0.5
    >>> check_number('rate', 1, '[0, 1)')
    Traceback (most recent call last):
    ...
    nfnet_mm.errors.UserError: rate=1 must be a number in [0, 1)
    """
    low, high = map(float, interval[1:-1].split(','))
    try:
        at = float(value) if isinstance(value, numbers.Real) and not isinstance(value, bool) else math.nan
    except OverflowError:  # an integer of hundreds of digits
        at = math.inf
    good = math.isfinite(at)
    if good:
        good = (low < at if interval[0] == '(' else low <= at) and (at < high if interval[-1] == ')' else at <= high)
    if not good:
        what = 'a positive finite number' if interval == '(0, inf)' else f'a number in {interval}'
        raise UserError(f'{name}={value!r} must be {what}{hint}')
    return value


def nearest_files(path: str | os.PathLike) -> tuple[Path, list[str]]:
    """The existing folder that a missing path points into, and what is there by names like the missing one."""
    missing = Path(path)
    while not missing.parent.is_dir():
        missing = missing.parent
    names = [entry.name for entry in missing.parent.iterdir()]
    return missing.parent, difflib.get_close_matches(missing.name, names, n=3, cutoff=0.5)


def check_exists(path: str | os.PathLike, what: str) -> None:
    """Raise a :class:`UserError` that suggests near names when ``path`` (a ``what``) is not a file."""
    if os.path.isfile(path):
        return
    if os.path.isdir(path):
        raise UserError(f'{what} {str(path)!r} is a folder, not a file')
    folder, names = nearest_files(path)
    hint = f'did you mean {", ".join(map(repr, names))}?' if names else 'nothing there has a like name'
    raise UserError(f'{what} {str(path)!r} does not exist; in {str(folder)!r}: {hint}')


def write_text(target: str | os.PathLike, text: str) -> None:
    """Write a text file in UTF-8, whole or not at all; see :func:`write_atomically`."""
    write_atomically(target, lambda file: file.write(text.encode()))


def make_folder(path: str | os.PathLike, what: str) -> Path:
    """A folder that can be written to, made if it is not there.

    Args:
        path: of the folder.
        what: it is, as the message begins.

    Raises:
        UserError: it cannot be made, or not be written to.
    """
    folder = Path(path).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f'{what} {os.fspath(path)!r} cannot be made: {error.strerror or error}') from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(f'{what} {os.fspath(path)!r} cannot be written')
    return folder


def write_atomically(target: str | os.PathLike, write: Callable[[BinaryIO], Any]) -> None:
    """Write a file so that it is there whole or not at all, after a crash too.

    Args:
        target: its path; what is there is replaced.
        write: writes the content to a file opened for binary writing.

    Raises:
        UserError: it cannot be written.
    """
    folder, name = os.path.split(os.fspath(target))
    folder = folder or '.'
    try:
        handle, temporary = tempfile.mkstemp(dir=folder, prefix=f'.{name}.', suffix='.tmp')
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
        raise UserError(f'{os.fspath(target)!r} was not written: {error.strerror or error}') from None
