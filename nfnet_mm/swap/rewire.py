"""Tell the modules that read a backbone how many channels its features have now; on plain dicts.

Everywhere ``levels`` is [(old, new channels)] of the features handed on, in order.
"""

from collections.abc import Sequence
from typing import Any

from nfnet_mm.errors import UserError

from .tree import Notes

Levels = Sequence[tuple[int, int]]
# Heads inside a two-stage detector's roi_head.
ROI_HEADS = ('bbox_head', 'mask_head', 'keypoint_head', 'semantic_head', 'grid_head')


def modules(value: Any) -> list[tuple[str, dict[str, Any]]]:
    """(suffix of the path, config) of a module or of each in a list."""
    if isinstance(value, dict):
        return [('', value)]
    items = enumerate(value) if isinstance(value, (list, tuple)) else ()
    return [(f'.{i}', item) for i, item in items if isinstance(item, dict)]


def rewire(module: dict[str, Any], key: str, path: str, levels: Levels, notes: Notes) -> None:
    """Replace the old channel numbers in an option by the new ones.

    Raises:
        UserError: a number is none of the old ones.
    """
    table = dict(levels)

    def new(value: Any) -> Any:
        if isinstance(value, (list, tuple)):
            return type(value)(map(new, value))
        if value not in table:
            known = f'none of the channels that the ResNet hands on ({", ".join(map(str, table))})'
            raise UserError(f'{path}.{key} holds {value!r}, which is {known}: cannot tell what it should become')
        return table[value]

    _assign(module, key, new(module[key]), path, notes)


def _assign(module: dict[str, Any], key: str, value: Any, path: str, notes: Notes) -> None:
    if module[key] != value:
        notes.add(f'{path}.{key}: {module[key]} -> {value}')
        module[key] = value


def rewire_head(head: dict[str, Any], path: str, levels: Levels, notes: Notes, behind: Levels | None = None) -> None:
    """Set the channels of a head that reads the backbone's features, and of the heads inside it that do.

    Args:
        head: its config, which is changed.
        path: where it is in the model.
        levels: what it reads.
        notes: told what changes.
        behind: what the heads inside a roi_head read where a shared head comes before them.

    Raises:
        UserError: it reads other channels than the ResNet's.
    """
    index: Any = head.get('in_index')
    if 'in_channels' in head and index is None:
        rewire(head, 'in_channels', path, levels, notes)
    elif 'in_channels' in head:  # which level is told, so that equal numbers cannot be mixed up
        value, many = head['in_channels'], isinstance(index, (list, tuple))
        read = [levels[i] for i in (index if many else (index,)) if -len(levels) <= i < len(levels)]
        if [old for old, _ in read] != (list(value) if many else [value]):
            asked = f'{path}.in_channels={value!r} with in_index={index!r}'
            raise UserError(f"{asked} does not fit the ResNet's channels {[old for old, _ in levels]}")
        new = [new for _, new in read]
        _assign(head, 'in_channels', type(value)(new) if many else new[0], path, notes)
    if head.get('c1_in_channels'):  # the skip connection of DeepLabV3+; 0 is none
        rewire(head, 'c1_in_channels', path, levels, notes)
    for name, inner in (head.get('task_heads') or {}).items():  # of mmpretrain's MultiTaskHead
        rewire_head(inner, f'{path}.task_heads.{name}', levels, notes)
    for key, value in head.items():
        for i, inner in modules(value):
            where = f'{path}.{key}{i}'
            if key.endswith('roi_extractor') and 'out_channels' in inner:
                rewire(inner, 'out_channels', where, levels, notes)
            elif key in ROI_HEADS or (key.endswith('head') and 'in_index' in inner):
                rewire_head(inner, where, behind or levels, notes)


def rewire_bisenet(host: dict[str, Any], path: str, levels: Levels, notes: Notes) -> None:
    """BiSeNetV1's context path reads stages 3 and 4; its fusion adds spatial and context width up to stage 3's."""
    inner, read, last = host['context_channels'][0], levels[-2][1], levels[-1][1]
    if read <= inner:
        keeps = f'{inner} channels of the {read} that the new backbone gives, and needs fewer than those'
        raise UserError(f'{path}.context_channels={host["context_channels"]!r}: BiSeNetV1 keeps {keeps}')
    spatial = host['spatial_channels']
    _assign(host, 'context_channels', type(host['context_channels'])((inner, read, last)), path, notes)
    _assign(host, 'spatial_channels', type(spatial)((*spatial[:-1], read - inner)), path, notes)
