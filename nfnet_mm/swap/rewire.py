"""Tell the modules that read a backbone how many channels its features have now; on plain dicts.

Everywhere ``levels`` is [(old, new channels)] of the features handed on, in order.
"""

from typing import Any

from nfnet_mm.errors import UserError

__all__ = ['assign', 'mapped', 'modules', 'rewire_bisenet', 'rewire_head']

# Heads inside a two-stage detector's roi_head.
ROI_HEADS = ('bbox_head', 'mask_head', 'keypoint_head', 'semantic_head', 'grid_head')


def modules(value: Any) -> list[tuple[str, dict]]:
    """(suffix of the path, config) of a module or of each in a list."""
    if isinstance(value, dict):
        return [('', value)]
    return [(f'.{i}', item) for i, item in enumerate(value or ()) if isinstance(item, dict)]


def assign(module: dict, key: str, value: Any, path: str, notes: list[str]) -> None:
    """Set ``module[key]``, and note it if it changes."""
    if module[key] != value:
        notes.append(f'{path}.{key}: {module[key]} -> {value}')
        module[key] = value


def mapped(value: Any, levels, path: str) -> Any:
    """Old channel numbers replaced by the new ones."""
    if isinstance(value, (list, tuple)):
        return type(value)(mapped(v, levels, path) for v in value)
    table = dict(levels)
    if value not in table:
        raise UserError(
            f'{path} holds {value!r}, which is none of the channels that the ResNet hands on '
            f'({", ".join(map(str, table))}): cannot tell what it should become'
        )
    return table[value]


def rewire_head(head: dict, path: str, levels, notes: list[str], behind=None) -> None:
    """Set the channels of a head that reads the backbone's features, and of the heads inside it that do.

    ``behind``: the levels that the heads inside a roi_head read where a shared head comes before them.
    """
    index = head.get('in_index')
    if 'in_channels' in head:
        value, where = head['in_channels'], f'{path}.in_channels'
        if index is not None:  # which level is told, so that equal numbers cannot be mixed up
            many = isinstance(index, (list, tuple))
            read = [levels[i] for i in (index if many else (index,))]
            if [old for old, _ in read] != (list(value) if many else [value]):
                raise UserError(
                    f"{where}={value!r} with in_index={index!r} does not fit the ResNet's channels "
                    f'{[old for old, _ in levels]}'
                )
            new = [new for _, new in read]
            assign(head, 'in_channels', type(value)(new) if many else new[0], path, notes)
        else:
            assign(head, 'in_channels', mapped(value, levels, where), path, notes)
    if head.get('c1_in_channels'):  # the skip connection of DeepLabV3+; 0 is none
        width = mapped(head['c1_in_channels'], levels, f'{path}.c1_in_channels')
        assign(head, 'c1_in_channels', width, path, notes)
    for name, inner in (head.get('task_heads') or {}).items():  # of mmpretrain's MultiTaskHead
        rewire_head(inner, f'{path}.task_heads.{name}', levels, notes)
    for key, value in head.items():
        for i, inner in modules(value) if isinstance(value, (dict, list, tuple)) else ():
            where = f'{path}.{key}{i}'
            if key.endswith('roi_extractor') and 'out_channels' in inner:
                width = mapped(inner['out_channels'], levels, f'{where}.out_channels')
                assign(inner, 'out_channels', width, where, notes)
            elif key in ROI_HEADS or (key.endswith('head') and 'in_index' in inner):
                rewire_head(inner, where, behind or levels, notes)


def rewire_bisenet(host: dict, path: str, levels, notes: list[str]) -> None:
    """BiSeNetV1's context path reads stages 3 and 4; its fusion adds spatial and context width up to stage 3's."""
    inner, read, last = host['context_channels'][0], levels[-2][1], levels[-1][1]
    if read <= inner:
        raise UserError(
            f'{path}.context_channels={host["context_channels"]!r}: BiSeNetV1 keeps {inner} channels of '
            f'the {read} that the new backbone gives, and needs fewer than those'
        )
    assign(host, 'context_channels', type(host['context_channels'])((inner, read, last)), path, notes)
    spatial = host['spatial_channels']
    assign(host, 'spatial_channels', type(spatial)((*spatial[:-1], read - inner)), path, notes)
