"""A config as text: settings in mmengine's Python, what one states beside another, comments that fit."""

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

WRITTEN = '# Written by tools/write_configs.py from nfnet_mm/recipes.\n'
WIDTH = 120


@dataclass(frozen=True)
class Name:
    """A name that stands in a config for a value."""

    name: str
    value: Any = None


def docstring(*parts: str) -> str:
    """A config's docstring of a first line and paragraphs."""
    filled = [textwrap.fill(part, WIDTH, break_on_hyphens=False) for part in parts if part]
    return f'"""{filled[0]}"""\n' if len(filled) == 1 else '"""' + '\n\n'.join(filled) + '\n"""\n'


def comment(text: str) -> str:
    return textwrap.fill(text, WIDTH, initial_indent='# ', subsequent_indent='# ', break_on_hyphens=False) + '\n'


def difference(new: dict[str, Any], old: dict[str, Any]) -> dict[str, Any]:
    """What to merge into ``old``, as mmengine merges, to get ``new``; dicts without a type may lack keys of ``old``.

    >>> difference(dict(lr=1, loop=dict(type='A', n=2)), dict(lr=1, loop=dict(type='B', m=2)))
    {'loop': {'_delete_': True, 'type': 'A', 'n': 2}}
    """
    changed = {}
    for key, value in new.items():
        before = old.get(key)
        if isinstance(value, dict) and isinstance(before, dict):
            if 'type' in value and ('type' not in before or not before.keys() <= value.keys()):
                value = dict(_delete_=True, **value)
            else:
                value = difference(value, before)
            if value:
                changed[key] = value
        elif isinstance(value, dict) and before is not None:  # mmengine asks for it over anything but a dict
            changed[key] = dict(_delete_=True, **value)
        elif key not in old or value != before:
            changed[key] = value
    return changed


def python(value: Any) -> str:
    """A value as a config writes it.

    >>> python(dict(lr=1e-5, out_indices=(4,), hooks=[None]))
    'dict(lr=1e-5, out_indices=(4, ), hooks=[None])'
    """
    match value:
        case Name():
            return value.name
        case dict():
            return f'dict({", ".join(f"{key}={python(item)}" if key else item.name for key, item in value.items())})'
        case list():
            return f'[{", ".join(map(python, value))}]'
        case str() if value.startswith('$'):
            return value[1:]
        case (item,):
            return f'({python(item)}, )'
        case float() if 0 < value <= 1e-3:
            return f'{value:g}e'.replace('0.001e', '1e-3').replace('0.0001e', '1e-4').replace('e-0', 'e-').rstrip('e')
    return repr(value)


def assignments(settings: Mapping[str, Any]) -> str:
    """The settings, each in lines of its own."""
    return ''.join('\n'.join(_lines(f'{key} = ', value)) + '\n' for key, value in settings.items())


def _lines(head: str, value: Any, indent: str = '') -> list[str]:
    """``head`` and a value in lines that fit."""
    text = f'{indent}{head}{python(value)}'
    if len(text) < WIDTH or not isinstance(value, dict | list):  # a comma may follow
        return [text]
    left, right, items = '[', ']', [('', item) for item in value]
    if isinstance(value, dict):
        left, right, items = 'dict(', ')', [(f'{key}=' if key else '', item) for key, item in value.items()]
    lines, inner, free = [f'{indent}{head}{left}'], f'{indent}    ', 0
    for name, item in items:
        text = f'{name}{python(item)},'
        if len(text) < free:
            lines[-1] += f' {text}'
        else:
            broken = _lines(name, item, inner)
            lines += [*broken[:-1], f'{broken[-1]},']
        free = WIDTH - len(lines[-1]) if lines[-1].endswith(text) else 0
    return [*lines[:-1], lines[-1][:-1] + right]
