"""Carry options that name a ResNet's parameters (``backbone.layer4``) over to the network in its place.

mmengine's ``custom_keys`` are parts of parameter names; of those that a name contains, the longest wins.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch

from nfnet_mm.registry import MODELS

__all__ = ['Swapped', 'swapped_parts', 'translate_keys', 'translate_name']

_DEPTHS = {
    '18': (2, 2, 2, 2),
    '34': (3, 4, 6, 3),
    '50': (3, 4, 6, 3),
    '101': (3, 4, 23, 3),
    '152': (3, 8, 36, 3),
    '200': (3, 24, 36, 3),
    '269': (3, 30, 48, 8),
}
_NORMS = {'GN': 'gn', 'IN': 'in', 'LN': 'ln'}
_STEM = {'0': 'conv0', '3': 'conv1', '6': 'conv2'}  # of the stem of three convs, norm layers between them
_BLOCK = {'conv1': 'conv0', 'conv2': 'conv1', 'conv3': 'conv2'}  # of the bottleneck
_LAYER = re.compile(r'\blayer([1-4])(?:\.(\d+)(?:\.(conv[123]|downsample(?:\.[01])?))?)?(?!\w)')
# They mean the same in every network.
_ANY_NETWORK = ('weight', 'bias', '.weight', '.bias')


class Swapped(NamedTuple):
    """A part of a model that was a ResNet, or a stage of one, and what is in its place."""

    places: tuple[str, ...]  # what the model may call it
    old: dict[str, Any]
    new: dict[str, Any]
    scope: str | None = None  # of the ResNet

    def old_names(self) -> list[tuple[str, bool]]:
        """Full names of the ResNet's parameters, and whether each is a norm layer's."""
        modules = list(_modules(self.old, self.scope))
        return [
            (f'{place}.{name}.{leaf}', norm)
            for place in self.places
            for name, norm in modules
            for leaf in (('weight', 'bias') if norm else ('weight',))
        ]

    def new_names(self) -> list[str]:
        """Full names of the new network's parameters."""
        with torch.device('meta'):  # names only
            net = MODELS.build({key: value for key, value in self.new.items() if key != 'init_cfg'})
        return [f'{place}.{name}' for place in self.places for name, _ in net.named_parameters()]


def swapped_parts(old: Any, new: Any, scope: str | None = None, path: str = '') -> Iterator[Swapped]:
    """What of a model was replaced by a network of this package, given both configs and the default scope."""
    if isinstance(old, dict) and isinstance(new, dict):
        kind = new.get('type')
        if kind != old.get('type') and str(kind).startswith('nfnet_mm.'):
            # a semi-supervised detector is held twice, BiSeNet's backbone by its context path
            other = path.replace('detector.', 'student.', 1).replace(
                'backbone.backbone_cfg', 'backbone.context_path.backbone'
            )
            yield Swapped(tuple(dict.fromkeys((path, other))), old, new, old['type'].rpartition('.')[0] or scope)
        else:
            for key in filter(old.__contains__, new):
                yield from swapped_parts(old[key], new[key], scope, f'{path}.{key}'.strip('.'))
    elif isinstance(old, (list, tuple)) and isinstance(new, (list, tuple)):
        yield from swapped_parts(dict(enumerate(old)), dict(enumerate(new)), scope, path)


def _modules(cfg: dict[str, Any], scope: str | None) -> Iterator[tuple[str, bool]]:
    """(name, whether it is a norm layer) of a ResNet's or ResLayer's convs and norm layers, in the frameworks' words.

    mmpretrain's deep stem is of modules with a conv and a norm layer, and its shortcuts pool only where they stride.
    """
    kind, depth = cfg['type'].rpartition('.')[2], str(cfg.get('depth', 50))
    norm = _NORMS.get((cfg.get('norm_cfg') or {}).get('type'), 'bn')
    if kind.startswith('ResLayer'):
        stages: Sequence[int] = (cfg.get('stage', 3),)
    else:
        stages = range(cfg.get('num_stages', 4))
        if cfg.get('deep_stem', kind in ('ResNetV1c', 'ResNetV1d', 'ResNeSt')):
            if scope == 'mmpretrain':
                yield from ((f'stem.{i}.{part}', part != 'conv') for i in range(3) for part in ('conv', norm))
            else:
                yield from ((f'stem.{i}', i in (1, 4, 7)) for i in (0, 1, 3, 4, 6, 7))
        else:
            yield from (('conv1', False), (f'{norm}1', True))
    pooled = int(cfg.get('avg_down', kind in ('ResNetV1d', 'ResNeSt')))  # a pooling before the shortcut's conv
    for stage in stages:
        for block in range(_DEPTHS.get(depth, _DEPTHS['50'])[stage]):
            at = f'layer{stage + 1}.{block}'
            for i in range(1, 3 if depth in ('18', '34') else 4):
                yield from ((f'{at}.conv{i}', False), (f'{at}.{norm}{i}', True))
            if block == 0:
                conv = pooled if stage or scope != 'mmpretrain' else 0
                yield from ((f'{at}.downsample.{conv}', False), (f'{at}.downsample.{conv + 1}', True))


def translate_name(name: str) -> str:
    """A parameter's name, or a part of one, with the ResNet's names in it replaced; as it is if there are none.

    Example:
        >>> [translate_name(name) for name in ('backbone.layer4', 'layer3.5.conv2', 'backbone.conv1', 'bbox_head')]
        ['backbone.stages.3', 'stages.2.5.conv1', 'backbone.stem', 'bbox_head']
    """

    def block(match):
        stage, number, part = match.groups()
        new = [f'stages.{int(stage) - 1}', number, part and _BLOCK.get(part, 'conv_shortcut')]
        return '.'.join(filter(None, new))

    name = _LAYER.sub(block, name)
    name = re.sub(r'^downsample(\.[01])?(?!\w)', 'conv_shortcut', name)
    name = re.sub(r'\bstem\.([036])(?!\w)', lambda match: f'stem.{_STEM[match[1]]}', name)
    name = re.sub(r'(?<=backbone\.)conv1(\.weight)?$', 'stem', name)
    return re.sub(r'(?<![^.])layer$', 'stages', name)


def _winner(name: str, keys: Sequence[str]) -> str | None:
    return next((key for key in keys if key in name), None)


def _ordered(keys) -> list[str]:
    return sorted(sorted(keys), key=len, reverse=True)  # as mmengine's constructor tries them


def translate_keys(keys: dict[str, Any], parts: Sequence[Swapped]) -> tuple[dict[str, Any], list[str]]:
    """``custom_keys`` for the new networks, and a line on each key that changes or no longer means what it did.

    A key that can match elsewhere too, as it does not name the backbone, stays beside its translation.
    """
    old = [pair for part in parts for pair in part.old_names()]
    new = [name for part in parts for name in part.new_names()]
    places = [f'{place}.' for part in parts for place in part.places]
    order, won = _ordered(keys), {key: [] for key in keys}
    for name, norm in old:
        key = _winner(name, order)
        if key is not None:
            won[key].append(norm)
    result: dict[str, Any] = {}
    origin, notes = {}, []
    for key, value in keys.items():
        text, hits = translate_name(key), sum(key in name for name in new)
        one_block = text != key and re.search(r'\bstages\.\d\.\d+$', text)
        if one_block and not any(key in name and f'{key}.' not in name for name, _ in old):
            text += '.'  # or else block 1 would be 10 and 11 too
        if key in _ANY_NETWORK or any(key in place for place in places) or not won[key]:
            text = key
        elif all(won[key]):
            text = key
            notes.append(
                f'{key!r} named {len(won[key])} parameters of norm layers in the ResNet, and the new network '
                "has none (its convs' gains are 'gain', which never decay, nor does LARS scale them: see "
                'NFOptimWrapperConstructor)'
            )
        elif text != key and any(text in name for name in new):
            mine = any(key.startswith(place) for place in places)
            notes.append(f'{key!r} -> {text!r}' if mine else f'{text!r} added beside {key!r}')
            if not mine:
                result[key], origin[key] = value, key
        elif not hits:
            text = key
            notes.append(
                f'{key!r} names a part of the ResNet without counterpart in the new network: nothing there '
                'has its settings'
            )
        elif not key.endswith('stem'):
            text = key
            notes.append(
                f'{key!r} named {len(won[key])} parameters of the ResNet and names {hits} of the new network, '
                'which may be others'
            )
        if text in result and result[text] != value:
            notes.append(f'WARNING: {key!r} and {origin[text]!r} both become {text!r}, with the settings of the latter')
            continue
        result[text], origin[text] = value, key
    told = set()
    for key, other, name in _surprises(result, origin, order, won, new):
        if (key, other) in told:
            continue
        told.add((key, other))
        if other is None:
            notes.append(
                f'WARNING: {key!r} decided nothing in the ResNet, and does in the new network, for example for {name!r}'
            )
        else:
            notes.append(
                f'WARNING: {key!r} now wins over {other!r}, for example for {name!r}, where '
                f'{origin[other]!r} won over {origin[key]!r}: state what you want'
            )
    return result, notes


def _surprises(keys, origin, order, won, new) -> Iterator[tuple[str, str | None, str]]:
    """(key, the key that it now wins over or None, for which parameter) of what wins now and did not before."""
    ranked = _ordered(keys)
    for name in new:
        matching = [key for key in ranked if key in name]
        if matching and not won[origin[matching[0]]]:
            yield matching[0], None, name
        for other in matching[1:]:
            first, second = origin[matching[0]], origin[other]
            if order.index(first) > order.index(second) and keys[other] != keys[matching[0]]:
                yield matching[0], other, name
