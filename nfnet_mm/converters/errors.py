"""Errors of reading and converting weights."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from nfnet_mm.errors import UserError, short


class ConversionError(UserError):
    """Weights are not what they should be; the message is one line and quotes the offending keys."""


class ReadError(ConversionError):
    """A file cannot be read safely, or is not what it should be; the message is one line."""


@contextmanager
def naming(path: str | os.PathLike) -> Iterator[None]:
    """Begin the message of what goes wrong inside with the path of the file."""
    try:
        yield
    except ConversionError as error:
        raise type(error)(f'{os.fspath(path)!r}: {error}') from None


@contextmanager
def malformed(what: str) -> Iterator[None]:
    """Make whatever Python raises inside, on a broken or hostile file, a :class:`ReadError` that begins so."""
    try:
        yield
    except (ReadError, MemoryError):
        raise
    except Exception as error:
        raise ReadError(f'{what}: {short(error)}') from None
