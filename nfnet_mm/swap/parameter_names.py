"""Carry options that name a ResNet's parameters (``backbone.layer4``) over to the network in its place.

mmengine's ``custom_keys`` are parts of parameter names; of those that a name contains, the longest wins.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import torch

from nfnet_mm.registry import MODELS

from .tree import Item, Notes, type_name, walk

# Blocks of the stages; all others have those of ResNet-50.
_DEPTHS = {'18': (2, 2, 2, 2), '101': (3, 4, 23, 3), '152': (3, 8, 36, 3), '200': (3, 24, 36, 3), '269': (3, 30, 48, 8)}
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
        return [
            (f'{place}.{name}.{leaf}', norm)
            for place in self.places
            for name, norm in _modules(self.old, self.scope)
            for leaf in (('weight', 'bias') if norm else ('weight',))
        ]

    def new_names(self) -> list[str]:
        """Full names of the new network's parameters."""
        with torch.device('meta'):  # names only
            net = MODELS.build({key: value for key, value in self.new.items() if key != 'init_cfg'})
        return [f'{place}.{name}' for place in self.places for name, _ in net.named_parameters()]


def swapped_parts(old: dict[str, Any], new: dict[str, Any], scope: str | None = None) -> Iterator[Swapped]:
    """What of a model was replaced by a network of this package, given both configs and the default scope."""
    before = {item.path: item.value for item in walk(old) if type_name(item.value)}

    def is_new(item: Item) -> bool:
        kind, was = item.value.get('type') if isinstance(item.value, dict) else None, before.get(item.path)
        return was is not None and str(kind).startswith('nfnet_mm.') and kind != was['type']

    for item in filter(is_new, walk(new, enter=lambda item: not is_new(item))):
        # a semi-supervised detector is held twice, BiSeNet's backbone by its context path
        other = item.path.replace('detector.', 'student.', 1)
        other = other.replace('backbone.backbone_cfg', 'backbone.context_path.backbone')
        was = before[item.path]
        places = tuple(dict.fromkeys((item.path, other)))
        yield Swapped(places, was, item.value, was['type'].rpartition('.')[0] or scope)


def _modules(cfg: dict[str, Any], scope: str | None) -> Iterator[tuple[str, bool]]:
    """(name, whether it is a norm layer) of a ResNet's or ResLayer's convs and norm layers, in the frameworks' words.

    mmpretrain's deep stem is of modules with a conv and a norm layer, and its shortcuts pool only where they stride.
    """
    kind, depth = type_name(cfg), str(cfg.get('depth', 50))
    norm = _NORMS.get(type_name(cfg.get('norm_cfg')), 'bn')
    if kind.startswith('ResLayer'):
        stages: Sequence[int] = (cfg.get('stage', 3),)
    else:
        stages = range(cfg.get('num_stages', 4))
        if not cfg.get('deep_stem', kind in ('ResNetV1c', 'ResNetV1d', 'ResNeSt')):
            yield from (('conv1', False), (f'{norm}1', True))
        elif scope == 'mmpretrain':
            yield from ((f'stem.{i}.{part}', part != 'conv') for i in range(3) for part in ('conv', norm))
        else:
            yield from ((f'stem.{i}', i in (1, 4, 7)) for i in (0, 1, 3, 4, 6, 7))
    pooled = int(cfg.get('avg_down', kind in ('ResNetV1d', 'ResNeSt')))  # a pooling before the shortcut's conv
    for stage in stages:
        for block in range(_DEPTHS.get(depth, (3, 4, 6, 3))[stage]):
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

    def block(match: re.Match[str]) -> str:
        stage, number, part = match.groups()
        new = [f'stages.{int(stage) - 1}', number, part and _BLOCK.get(part, 'conv_shortcut')]
        return '.'.join(filter(None, new))

    name = _LAYER.sub(block, name)
    name = re.sub(r'^downsample(\.[01])?(?!\w)', 'conv_shortcut', name)
    name = re.sub(r'\bstem\.([036])(?!\w)', lambda match: f'stem.{_STEM[match[1]]}', name)
    name = re.sub(r'(?<=backbone\.)conv1(\.weight)?$', 'stem', name)
    return re.sub(r'(?<![^.])layer$', 'stages', name)


def _ordered(keys: Iterable[str]) -> list[str]:
    return sorted(sorted(keys), key=len, reverse=True)  # as mmengine's constructor tries them


def translate_keys(keys: dict[str, Any], parts: Sequence[Swapped], place: str = '') -> tuple[dict[str, Any], Notes]:
    """``custom_keys`` for the new networks; a key that can match elsewhere too stays beside its translation.

    Args:
        keys: the options of the parameters whose names contain each key.
        parts: what was replaced.
        place: what notes begin with.

    Returns:
        the new keys, and a note on each key that changes or no longer means what it did.
    """
    notes = Notes(place)
    old = [pair for part in parts for pair in part.old_names()]
    new = [name for part in parts for name in part.new_names()]
    inside = tuple(f'{where}.' for part in parts for where in part.places)
    # Of each key, in the order tried: for each parameter that it decides, whether it is a norm layer's.
    won: dict[str, list[bool]] = {key: [] for key in _ordered(keys)}
    for name, norm in old:
        for key in won:
            if key in name:
                won[key].append(norm)
                break
    result: dict[str, Any] = {}
    origin: dict[str, str] = {}
    for key, value in keys.items():
        text, written, hits = translate_name(key), [key], sum(key in name for name in new)
        one_block = text != key and re.search(r'\bstages\.\d\.\d+$', text)
        if one_block and not any(key in name and f'{key}.' not in name for name, _ in old):
            text += '.'  # or else block 1 would be 10 and 11 too
        if key in _ANY_NETWORK or any(key in where for where in inside) or not won[key]:
            pass  # it means what it did
        elif all(won[key]):
            notes.add(
                f'{key!r} named {len(won[key])} parameters of norm layers in the ResNet, and the new network '
                "has none (its convs' gains are 'gain', which never decay, nor does LARS scale them: see "
                'NFOptimWrapperConstructor)'
            )
        elif text != key and any(text in name for name in new):
            mine = key.startswith(inside)
            written = [text] if mine else [key, text]
            notes.add(f'{key!r} -> {text!r}' if mine else f'{text!r} added beside {key!r}')
        elif not hits:
            lost = f'{key!r} names a part of the ResNet without counterpart in the new network'
            notes.add(f'{lost}: nothing there has its settings')
        elif not key.endswith('stem'):
            counts = f'named {len(won[key])} parameters of the ResNet and names {hits} of the new network'
            notes.add(f'{key!r} {counts}, which may be others')
        for text in written:
            if text in result and result[text] != value:
                notes.warn(f'{key!r} and {origin[text]!r} both become {text!r}, with the settings of the latter')
            else:
                result[text], origin[text] = value, key
    # What wins now and did not before: (key, the key that it wins over or None), and the first such parameter.
    surprises: dict[tuple[str, str | None], str] = {}
    ranked, order = _ordered(result), list(won)
    for name in new:
        matching = [key for key in ranked if key in name]
        if matching and not won[origin[matching[0]]]:
            surprises.setdefault((matching[0], None), name)
        for other in matching[1:]:
            first, second = origin[matching[0]], origin[other]
            if order.index(first) > order.index(second) and result[other] != result[matching[0]]:
                surprises.setdefault((matching[0], other), name)
    for (key, beaten), name in surprises.items():
        if beaten is None:
            notes.warn(f'{key!r} decided nothing in the ResNet, and does in the new network, for example for {name!r}')
        else:
            was = f'{origin[beaten]!r} won over {origin[key]!r}'
            notes.warn(f'{key!r} now wins over {beaten!r}, for example for {name!r}, where {was}: state what you want')
    return result, notes
