"""What every step of a swap uses: a walk through a config's nested dicts and lists, types by name, and notes."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from nfnet_mm.errors import UserError


class Item(NamedTuple):
    """A value in a config, and where it is."""

    where: str  # path of what holds it: 'model.roi_head'
    owner: Any  # the dict, list or tuple that holds it
    key: Any  # or its index
    value: Any

    @property
    def path(self) -> str:
        return f'{self.where}.{self.key}' if self.where else str(self.key)


def walk(node: Any, where: str = '', enter: Callable[[Item], bool] = lambda item: True) -> Iterator[Item]:
    """Everything inside nested dicts, lists and tuples, what holds something before what is in it.

    Args:
        node: where to begin; it is not yielded itself.
        where: its path.
        enter: whether to go into an item, which is yielded either way.

    Example:
        >>> [item.path for item in walk(dict(a=[dict(b=1), 2]))]
        ['a', 'a.0', 'a.0.b', 'a.1']
    """
    held = node.items() if isinstance(node, dict) else enumerate(node if isinstance(node, (list, tuple)) else ())
    for key, value in held:
        item = Item(where, node, key, value)
        yield item
        if enter(item):
            yield from walk(value, item.path, enter)


def of_no_teacher(item: Item) -> bool:
    """Whether an item is none of a distillation's teacher, which a swap leaves as it is."""
    return not str(item.key).startswith('teacher')


def module_type(cfg: dict[str, Any]) -> tuple[str | None, str]:
    """(scope, name) of a module's type.

    Raises:
        UserError: it is not given by its name.
    """
    kind = cfg.get('type')
    if not isinstance(kind, str):
        can = 'the old style, with types as text, can be converted'
        raise UserError(f"type={kind!r} is a class, of a config in the style of mmengine's read_base; {can}")
    scope, _, name = kind.rpartition('.')
    return scope or None, name


def type_name(value: Any) -> str:
    """The type of a module without its scope; empty if the value is no module."""
    return str(value.get('type', '')).rpartition('.')[2] if isinstance(value, dict) else ''


def listed(values: dict[str, Any]) -> str:
    """Options in a note: ``key value, key value``."""
    return ', '.join(f'{key} {value}' for key, value in values.items())


class Notes(list[str]):
    """What a swap changed and what stays, a line each; a line on what the user must see to begins with WARNING."""

    def __init__(self, place: str = '') -> None:
        super().__init__()
        self.place = place  # each line names it

    def add(self, text: str) -> None:
        self.append(f'{self.place}{text}')

    def warn(self, text: str) -> None:
        self.append(f'WARNING: {self.place}{text}')
