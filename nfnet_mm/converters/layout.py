"""The keys and shapes of a classifier's state dict, read off the dict itself.

The classifier is mmpretrain's ``ImageClassifier`` around one of our backbones::

    backbone.stem.conv{s}.{weight (O,I,k,k), gain (O,), bias (O,)}     s: 0-3 (NFNet), 0 (NFResNet, NFRegNet)
    backbone.stages.{i}.{j}.{conv}.{weight (O,I/groups,k,k), gain (O,), bias (O,)}
                    conv: conv0 1x1, conv1 3x3, conv1b 3x3 (NFNet), conv2 1x1, conv_shortcut 1x1 (j = 0)
    backbone.stages.{i}.{j}.attention.{fc1.weight (H,C), fc1.bias (H,), fc2.weight (C,H), fc2.bias (C,)}  or
    backbone.stages.{i}.{j}.attention.conv.weight (1,1,k)              C: block output, or its middle (NFRegNet)
    backbone.stages.{i}.{j}.skip_gain ()
    backbone.final_conv.{weight (F,C,1,1), gain (F,), bias (F,)}       NFNet, NFRegNet
    head.fc.{weight (classes,F), bias (classes,)}

A dict that any converter produced is held against this before anyone sees it.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import isfinite

import torch
from torch import Tensor

from nfnet_mm.errors import some

from .errors import ConversionError

_BLOCK = re.compile(r'backbone\.stages\.(\d+)\.(\d+)\.(.+)')
_STAGES = 4
_SE = ('fc1.weight', 'fc1.bias', 'fc2.weight', 'fc2.bias')
_RANKS = (  # by the key, the first that matches
    (r'.*attention\.conv\.weight', 3),
    (r'.*\.(?:final_)?conv\w*\.weight', 4),
    (r'.*\.fc\d?\.weight', 2),
    (r'.*\.(?:gain|bias)', 1),
    (r'.*\.skip_gain', 0),
)


@dataclass(frozen=True)
class Layout:
    """What a state dict's keys and shapes tell of its network."""

    family: str  # 'NFNet', 'NFResNet' or 'NFRegNet'
    depths: tuple[int, ...]
    widths: tuple[int, ...]  # output channels of each stage
    mid_widths: tuple[int, ...]  # of the last block of each stage
    group_widths: tuple[int, ...]
    stem_channels: int
    in_channels: int
    attention: str | None  # 'se', 'eca' or None
    se_hidden: int | None  # of the last block
    skip_gain: bool
    final_channels: int | None
    num_classes: int | None  # None without a head
    parameters: int


def describe(state_dict: Mapping[str, Tensor], head: bool = True) -> Layout:
    """Check a classifier's state dict in full and say which network it is.

    Args:
        state_dict: Keys and shapes as in the module's docstring.
        head: Whether ``head.fc`` has to be there, or must not be.

    Raises:
        ConversionError: A key is missing or left over, a rank or shape does not fit the rest, a weight is not a
            floating-point number, or is NaN or Inf.
    """
    check_leaves(state_dict)
    depths = _depths(state_dict)
    stem = 4 if 'backbone.stem.conv1.weight' in state_dict else 1
    first = {m[3] for m in map(_BLOCK.fullmatch, state_dict) if m and m[1] == m[2] == '0'}
    attention = 'eca' if 'attention.conv.weight' in first else 'se' if first & {f'attention.{k}' for k in _SE} else None
    parts = dict(
        conv1b=any(k.startswith('conv1b.') for k in first),
        attention=attention,
        skip_gain='skip_gain' in first,
        final='backbone.final_conv.weight' in state_dict,
    )
    expected = list(_keys(depths, stem, head=head, **parts))
    missing, leftover = set(expected) - set(state_dict), set(state_dict) - set(expected)
    if missing or leftover:
        told = [f'{len(s)} {what}: {some(s)}' for s, what in ((missing, 'missing'), (leftover, 'left over')) if s]
        raise ConversionError('the weights do not make one network: ' + '; '.join(told))

    shape = {k: tuple(v.shape) for k, v in state_dict.items()}
    kernel = shape['backbone.stem.conv0.weight'][2]
    family = 'NFNet' if stem == 4 else 'NFResNet' if kernel == 7 else 'NFRegNet'
    if parts['final'] != (family != 'NFResNet') or parts['conv1b'] != (family == 'NFNet'):
        raise ConversionError(
            f'no known family has {stem} stem convolution(s) of {kernel}x{kernel} '
            f'{"with" if parts["conv1b"] else "without"} conv1b {"with" if parts["final"] else "without"} final_conv'
        )
    for key, want in _shapes(shape, depths, stem, kernel, family, attention).items():
        if shape[key] != want:
            raise ConversionError(f'{key} has shape {shape[key]}, its neighbours need {want}')

    last = [f'backbone.stages.{i}.{d - 1}.' for i, d in enumerate(depths)]
    return Layout(
        family=family,
        depths=depths,
        widths=tuple(shape[p + 'conv2.weight'][0] for p in last),
        mid_widths=tuple(shape[p + 'conv1.weight'][0] for p in last),
        group_widths=tuple(shape[p + 'conv1.weight'][1] for p in last),
        stem_channels=shape[f'backbone.stem.conv{stem - 1}.weight'][0],
        in_channels=shape['backbone.stem.conv0.weight'][1],
        attention=attention,
        se_hidden=shape[last[-1] + 'attention.fc1.weight'][0] if attention == 'se' else None,
        skip_gain=parts['skip_gain'],
        final_channels=shape['backbone.final_conv.weight'][0] if parts['final'] else None,
        num_classes=shape['head.fc.weight'][0] if head else None,
        parameters=sum(v.numel() for v in state_dict.values()),
    )


def ordered(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same weights in one order: stem, blocks by number, final conv, head.

    >>> list(ordered({'head.fc.bias': 1, 'backbone.stages.0.10.skip_gain': 2, 'backbone.stages.0.9.skip_gain': 3}))
    ['backbone.stages.0.9.skip_gain', 'backbone.stages.0.10.skip_gain', 'head.fc.bias']
    """

    def place(key):
        block = _BLOCK.fullmatch(key)
        if block:
            return 1, int(block[1]), int(block[2]), block[3]
        return 0 if '.stem.' in key else 2, 0, 0, key

    return {k: state_dict[k] for k in sorted(state_dict, key=place)}


def check_leaves(state_dict: Mapping[str, Tensor]) -> None:
    """Check each weight by itself: a floating-point tensor of the rank its name asks for, not empty, all finite."""
    for key, value in state_dict.items():
        if not isinstance(value, Tensor):
            raise ConversionError(f'{key} is a {type(value).__name__}, not a tensor')
        if not value.is_floating_point():
            raise ConversionError(f'{key} is {value.dtype}, a weight has to be floating-point')
        rank = next((rank for pattern, rank in _RANKS if re.fullmatch(pattern, key)), None)
        if rank is not None and value.ndim != rank:
            raise ConversionError(f'{key} has shape {tuple(value.shape)}, it needs {rank} dimension(s)')
        if not value.numel():
            raise ConversionError(f'{key} is empty: its shape is {tuple(value.shape)}')
        # One pass and no copy; NaN passes through. On the meta device there is nothing to look at.
        if not value.is_meta and not all(map(isfinite, torch.aminmax(value.detach()))):
            raise ConversionError(f'{key} holds NaN or Inf')


def _depths(keys: Iterable[str]) -> tuple[int, ...]:
    blocks = {(int(m[1]), int(m[2])) for m in map(_BLOCK.fullmatch, keys) if m}
    stages = {i for i, _ in blocks}
    if stages != set(range(_STAGES)):
        raise ConversionError(f'found the stages {sorted(stages)}, every family has {_STAGES}')
    return tuple(max(j for s, j in blocks if s == i) + 1 for i in range(_STAGES))


def _keys(depths, stem, conv1b, attention, skip_gain, final, head) -> Iterable[str]:
    def conv(name):
        return (f'{name}.{leaf}' for leaf in ('weight', 'gain', 'bias'))

    for s in range(stem):
        yield from conv(f'backbone.stem.conv{s}')
    for i, depth in enumerate(depths):
        for j in range(depth):
            block = f'backbone.stages.{i}.{j}.'
            for name in ('conv0', 'conv1', *['conv1b'] * conv1b, 'conv2', *['conv_shortcut'] * (j == 0)):
                yield from conv(block + name)
            leaves = {'se': _SE, 'eca': ('conv.weight',), None: ()}[attention]
            yield from (f'{block}attention.{leaf}' for leaf in leaves)
            if skip_gain:
                yield block + 'skip_gain'
    if final:
        yield from conv('backbone.final_conv')
    if head:
        yield from ('head.fc.weight', 'head.fc.bias')


def _shapes(shape, depths, stem, kernel, family, attention) -> dict[str, tuple[int, ...]]:
    """What every shape has to be, given the free ones: channels in and out, group widths, hidden widths, classes."""
    want = {}

    def conv(name, size, inputs):
        out = shape[name + '.weight'][0]
        want[name + '.weight'] = (out, inputs, size, size)
        want[name + '.gain'] = want[name + '.bias'] = (out,)
        return out

    channels = shape['backbone.stem.conv0.weight'][1]
    for s in range(stem):
        channels = conv(f'backbone.stem.conv{s}', kernel if stem == 1 else 3, channels)
    for i, depth in enumerate(depths):
        for j in range(depth):
            block = f'backbone.stages.{i}.{j}.'
            mid = conv(block + 'conv0', 1, channels)
            for name in ('conv1', 'conv1b')[: 1 + (family == 'NFNet')]:
                group = shape[block + 'conv1.weight'][1]
                conv(block + name, 3, group)
                if not group or mid % group:
                    raise ConversionError(f'{block}{name}.weight has groups of {group} in {mid} channels')
                want[f'{block}{name}.weight'] = (mid, group, 3, 3)
            out = conv(block + 'conv2', 1, mid)
            if j == 0:
                conv(block + 'conv_shortcut', 1, channels)
                want[block + 'conv_shortcut.weight'] = (out, channels, 1, 1)
            elif out != channels:
                raise ConversionError(f'{block}conv2.weight has {out} outputs, its shortcut has {channels}')
            seen = mid if family == 'NFRegNet' else out
            if attention == 'se':
                hidden = shape[block + 'attention.fc1.weight'][0]
                want.update(
                    zip((f'{block}attention.{k}' for k in _SE), ((hidden, seen), (hidden,), (seen, hidden), (seen,)))
                )
            elif attention == 'eca':
                size = shape[block + 'attention.conv.weight'][2]
                want[block + 'attention.conv.weight'] = (1, 1, size | 1)
            channels = out
    if family != 'NFResNet':
        channels = conv('backbone.final_conv', 1, channels)
    if 'head.fc.weight' in shape:
        classes = shape['head.fc.weight'][0]
        want['head.fc.weight'], want['head.fc.bias'] = (classes, channels), (classes,)
    return want
