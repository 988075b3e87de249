"""What goes wrong with weights, in one line."""

from collections.abc import Iterable


class ConversionError(ValueError):
    """Weights are not what they should be; the message is one line and quotes the offending keys."""


class ReadError(ConversionError):
    """A file cannot be read safely, or is not what it should be; the message is one line."""


def some(names: Iterable[str], limit: int = 6) -> str:
    """The first names, and how many more there are.

    >>> some(['b', 'a', 'c'], limit=2)
    'a, b and 1 more'
    """
    names = sorted(names)
    more = f' and {len(names) - limit} more' if len(names) > limit else ''
    return ', '.join(short(name) for name in names[:limit]) + more


def short(text: object) -> str:
    """One line of at most 100 characters, whatever is in a text, a number or an exception.

    >>> short('a\\nb' * 200)  # doctest: +ELLIPSIS
    'a?ba?b...'
    """
    line = ''.join(c if c.isprintable() else '?' for c in str(text)[:400])
    return line if len(line) <= 100 else line[:97] + '...'
