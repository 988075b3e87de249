"""Errors that are told to the user in one line."""
from collections.abc import Iterable


class UserError(ValueError):
    """Something the user named is wrong. The tools print it as one line and exit with status 2."""


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
