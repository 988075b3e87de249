"""The names and shapes of a classifier's weights: those of a plan of blocks, and those of a state dict.

The classifier is mmpretrain's ``ImageClassifier`` around one of our backbones, with names such as
``backbone.stem.conv0.weight``, ``backbone.stages.3.0.attention.fc1.bias``, ``backbone.final_conv.gain`` and
``head.fc.weight``; :func:`_shapes` has all. A few sizes in a state dict are free: depths, widths, groups and so on.
They make a plan of blocks, the plan gives all names and shapes, and those of the state dict have to be the same. The
papers' baselines are known by what their convs lack, the gains, and what is there instead.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, partial
from math import isfinite, prod
from typing import Any

import torch
from torch import Tensor

from nfnet_mm.errors import UserError, some
from nfnet_mm.models.backbones.arch import resolve_arch
from nfnet_mm.models.backbones.plan import NUM_STAGES, BlockSpec, NFArch, plan_blocks
from nfnet_mm.models.layers import EfficientChannelAttention
from nfnet_mm.registry import MODELS

from .errors import ConversionError

_BLOCK = re.compile(r'backbone\.stages\.(\d{1,6})\.(\d{1,6})\.(.+)')
_STEM, _FINAL, _HEAD = 'backbone.stem.conv0.weight', 'backbone.final_conv.weight', 'head.fc.weight'
_RANKS = (  # by the key, the first that matches
    (r'.*attention\.conv\.weight', 3),
    (r'.*\.(?:final_)?conv\w*\.weight', 4),
    (r'.*bn\w*\.(?:weight|running_mean|running_var)', 1),
    (r'.*\.fc\d?\.weight', 2),
    (r'.*\.(?:gain|bias)', 1),
    (r'.*\.(?:skip_gain|scale|bias\d[ab]?|num_batches_tracked)', 0),
)
_AVERAGES = ('.running_mean', '.running_var', '.num_batches_tracked')
Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Layout:
    """The shape of a network, equal for two that have the same weights but for their values."""

    family: str  # a key of FAMILIES
    depths: tuple[int, ...]
    widths: tuple[int, ...]  # output channels of each stage
    mid_widths: tuple[int, ...]  # of the last block of each stage
    group_widths: tuple[int, ...]  # of the last block of each stage
    stem_channels: int
    attention: str | None  # 'se', 'eca' or None
    se_hidden: int | None  # of the last block
    skip_gain: bool
    final_channels: int | None
    in_channels: int
    num_classes: int | None  # None without a head
    shapes: Shapes = field(repr=False)  # of every weight, in the order of the modules

    @property
    def parameters(self) -> int:
        """How many numbers the weights are, without BatchNorm's averages."""
        return sum(prod(shape) for key, shape in self.shapes.items() if not key.endswith(_AVERAGES))


def planned_layout(
    family: str, arch: NFArch, blocks: Iterable[BlockSpec], in_channels: int, num_classes: int | None
) -> Layout:
    """The layout of a network of a family, a design and its blocks in order (of :func:`plan_blocks`)."""
    blocks = list(blocks)
    last = [block for block in blocks if block.index == arch.depths[block.stage] - 1]
    return Layout(
        family=family,
        depths=arch.depths,
        widths=arch.widths,
        mid_widths=tuple(block.width for block in last),
        group_widths=tuple(block.width // block.groups for block in last),
        stem_channels=arch.stem_channels[-1],
        attention=arch.attention,
        se_hidden=last[-1].se_hidden,
        skip_gain=arch.skip_init,
        final_channels=arch.final_channels,
        in_channels=in_channels,
        num_classes=num_classes,
        shapes=_shapes(arch, blocks, in_channels, num_classes)
        if arch.method == 'nf'
        else _baseline_shapes(family, arch, in_channels, num_classes),
    )


def _baseline_shapes(family: str, arch: NFArch, in_channels: int, num_classes: int | None) -> Shapes:
    with torch.device('meta'):
        cfg = dict(type=f'nfnet_mm.{family}', arch=arch, in_channels=in_channels, out_indices=(NUM_STAGES,))
        net = MODELS.build(cfg)
    shapes = {f'backbone.{key}': tuple(value.shape) for key, value in net.state_dict().items()}
    if num_classes:
        shapes[_HEAD], shapes['head.fc.bias'] = (num_classes, net.out_channels[0]), (num_classes,)
    return shapes


def _shapes(arch: NFArch, blocks: Iterable[BlockSpec], in_channels: int, num_classes: int | None) -> Shapes:
    shapes: Shapes = {}

    def conv(name: str, outputs: int, inputs: int, kernel: int = 1) -> None:
        shapes[f'{name}.weight'] = (outputs, inputs, kernel, kernel)
        shapes[f'{name}.bias'] = shapes[f'{name}.gain'] = (outputs,)

    def linear(name: str, outputs: int, inputs: int) -> None:
        shapes[f'{name}.weight'], shapes[f'{name}.bias'] = (outputs, inputs), (outputs,)

    for i, (outputs, inputs) in enumerate(zip(arch.stem_channels, (in_channels, *arch.stem_channels))):
        conv(f'backbone.stem.conv{i}', outputs, inputs, arch.stem_kernel)
    for block in blocks:
        at = f'backbone.stages.{block.stage}.{block.index}.'
        width, group, seen = block.width, block.width // block.groups, block.attention_channels
        if arch.skip_init:
            shapes[f'{at}skip_gain'] = ()
        if block.transition:
            conv(f'{at}conv_shortcut', block.out_channels, block.in_channels)
        conv(f'{at}conv0', width, block.in_channels)
        conv(f'{at}conv1', width, group, 3)
        if arch.extra_conv:
            conv(f'{at}conv1b', width, group, 3)
        conv(f'{at}conv2', block.out_channels, width)
        if block.se_hidden is not None:
            linear(f'{at}attention.fc1', block.se_hidden, seen)
            linear(f'{at}attention.fc2', seen, block.se_hidden)
        elif arch.attention == 'eca':
            with torch.device('meta'):
                gate = EfficientChannelAttention(seen)
            shapes[f'{at}attention.conv.weight'] = tuple(gate.conv.weight.shape)
    channels = arch.widths[-1]
    if arch.final_channels:
        conv('backbone.final_conv', arch.final_channels, channels)
        channels = arch.final_channels
    if num_classes:
        linear('head.fc', num_classes, channels)
    return shapes


def describe(state_dict: Mapping[str, Tensor], head: bool = True) -> Layout:
    """Check a classifier's state dict in full and say which network it is.

    Args:
        state_dict: names and tensors of a whole classifier.
        head: whether ``head.fc`` has to be there, or must not be.

    Raises:
        ConversionError: a key is missing or left over, a rank or shape does not fit the rest, a weight is not a
            floating-point number, or is NaN or Inf.
    """
    check_leaves(state_dict)
    return read_layout(state_dict, head)


def read_layout(state_dict: Mapping[str, Tensor], head: bool = True) -> Layout:
    """:func:`describe` for weights that :func:`check_leaves` has seen: no values are looked at."""
    shapes: Shapes = {key: tuple(value.shape) for key, value in state_dict.items()}
    method = method_of(shapes)
    try:
        layout = (_fit if method == 'nf' else partial(_fit_baseline, method))(shapes, head)
    except UserError as error:  # no design has such numbers
        raise ConversionError(str(error)) from None
    missing, left_over = layout.shapes.keys() - shapes.keys(), shapes.keys() - layout.shapes.keys()
    if missing or left_over:
        told = [f'{len(s)} {what}: {some(s)}' for s, what in ((missing, 'missing'), (left_over, 'left over')) if s]
        raise ConversionError('the weights do not make one network: ' + '; '.join(told))
    for key, want in layout.shapes.items():
        if shapes[key] != want:
            raise ConversionError(f'{key} has shape {shapes[key]}, its neighbours need {want}')
    return layout


def method_of(keys: Iterable[str]) -> str:
    """``NFArch.method`` of the network with these keys; the baselines' convs have no gains."""
    leaves = {key.rpartition('.')[2] for key in keys}
    if 'gain' in leaves:
        return 'nf'
    marks = dict(bn='running_mean', fixup='scale', skipinit='skip_gain')
    return next((method for method, mark in marks.items() if mark in leaves), 'nf')


def _find_blocks(shapes: Shapes) -> tuple[list[tuple[str, ...]], tuple[int, ...]]:
    """(stage, index, name in the block) of each weight in a block, and the depths of the stages."""
    found = [match.groups() for match in map(_BLOCK.fullmatch, shapes) if match]
    blocks = {(int(stage), int(index)) for stage, index, _ in found}
    stages = sorted({stage for stage, _ in blocks})
    if stages != list(range(NUM_STAGES)):
        raise ConversionError(f'found the stages {stages}, every family has {NUM_STAGES}')
    depths = tuple(max(index for s, index in blocks if s == stage) + 1 for stage in stages)
    if sum(depths) > len(shapes):
        raise ConversionError(f'the blocks of the stages go up to {depths}, with {len(shapes)} weights in all')
    return found, depths


def _size(shapes: Shapes, key: str, axis: int = 0, unknown: int = 1) -> int:
    return shapes[key][axis] if key in shapes else unknown  # that it is missing is said later


def _fit_baseline(method: str, shapes: Shapes, head: bool) -> Layout:
    """The same for a baseline, whose stages are of equal blocks."""
    size = partial(_size, shapes)
    found, depths = _find_blocks(shapes)
    names, stages = Counter(name for *_, name in found), range(NUM_STAGES)
    stem = 4 if any(re.match(r'backbone\.stem\.conv[123]\.', key) for key in shapes) else 1
    family = dict(bn='BNNFNet' if stem == 4 else 'BNResNet', fixup='FixupResNet', skipinit='SkipInitResNet')[method]
    # where one is missing, another has the same channels
    firsts = [f'backbone.stages.{stage}.0' for stage in stages]
    widths = tuple(size(f'{at}.conv2.weight', unknown=size(f'{at}.conv_shortcut.weight')) for at in firsts)
    width = size(f'{firsts[0]}.conv0.weight', unknown=size(f'{firsts[0]}.conv1.weight'))
    fields: dict[str, Any] = dict(
        widths=widths,
        depths=depths,
        stem_channels=tuple(size(f'backbone.stem.conv{s}.weight') for s in range(stem)),
        # a little more, as widths are rounded down
        bottleneck_ratio=width / widths[0] * (1 + 1e-9),
        group_width=tuple(size(f'{at}.conv1.weight', 1) for at in firsts),
    )
    if method == 'bn' and any(key.startswith('backbone.final_conv.') for key in shapes):
        fields['final_channels'] = size(_FINAL)
    half = len({(stage, index) for stage, index, _ in found}) / 2
    eca, se = (names[name] > half for name in ('attention.conv.weight', 'attention.fc1.weight'))
    fields['attention'] = 'eca' if eca else 'se' if se else None
    if se:
        fields['se_ratio'] = size('backbone.stages.0.0.attention.fc1.weight') / widths[0] * (1 + 1e-9)
    preact = not any('.shortcut_bn.' in key for key in shapes)
    arch = replace(resolve_arch(family, fields), preact=preact)
    return planned_layout(family, arch, plan_blocks(arch), size(_STEM, 1), size(_HEAD) if head else None)


def _fit(shapes: Shapes, head: bool) -> Layout:
    """The layout of the sizes that are free; whether the rest of the shapes are its, too, is not looked at."""
    size = partial(_size, shapes)
    found, depths = _find_blocks(shapes)
    blocks = {(stage, index) for stage, index, _ in found}
    stages = range(NUM_STAGES)
    count = Counter(name for *_, name in found)

    def most_have(name: str) -> bool:
        return 2 * count[name] > len(blocks)

    stem = 4 if any(re.match(r'backbone\.stem\.conv[123]\.', key) for key in shapes) else 1
    final = any(key.startswith('backbone.final_conv.') for key in shapes)
    extra = most_have('conv1b.weight')
    kernel = size(_STEM, 2, unknown=3 if stem == 4 or final else 7)
    family = 'NFNet' if stem == 4 else 'NFResNet' if kernel == 7 else 'NFRegNet'
    if final != (family != 'NFResNet') or extra != (family == 'NFNet'):
        rest = f'{"with" if extra else "without"} conv1b {"with" if final else "without"} final_conv'
        raise ConversionError(f'no known family has {stem} stem convolution(s) of {kernel}x{kernel} {rest}')
    fields = dict(
        widths=tuple(size(f'backbone.stages.{stage}.0.conv2.weight') for stage in stages),
        depths=depths,
        stem_channels=tuple(size(f'backbone.stem.conv{s}.weight') for s in range(stem)),
        bottleneck_ratio=1,  # of each block below
        group_width=None,
        final_channels=size(_FINAL) if final else None,
        attention='eca' if most_have('attention.conv.weight') else 'se' if most_have('attention.fc1.weight') else None,
        skip_init=most_have('skip_gain'),
    )

    @cache
    def arch_with(se_ratio: float) -> NFArch:
        return resolve_arch(family, {**fields, 'se_ratio': se_ratio})

    def as_found(block: BlockSpec) -> BlockSpec:
        name = f'backbone.stages.{block.stage}.{block.index}.'
        group = size(name + 'conv1.weight', 1)
        width = size(name + 'conv0.weight', unknown=group)
        if width % group:
            raise ConversionError(f'{name}conv1.weight has groups of {group} in {width} channels')
        block = replace(block, width=width, groups=width // group)
        if block.arch.attention != 'se':
            return block
        hidden = size(name + 'attention.fc1.weight')  # half a channel more, as ratios are rounded down
        return replace(block, arch=arch_with((hidden + 0.5) / block.attention_channels))

    arch = arch_with(1.0)
    specs = map(as_found, plan_blocks(arch))
    return planned_layout(family, arch, specs, size(_STEM, 1), size(_HEAD) if head else None)


def check_leaves(state_dict: Mapping[str, Tensor]) -> None:
    """Check each weight by itself: a floating-point tensor of the rank its name asks for, not empty, all finite."""
    for key, value in state_dict.items():
        if not isinstance(value, Tensor):
            raise ConversionError(f'{key} is a {type(value).__name__}, not a tensor')
        if key.endswith('.num_batches_tracked'):
            if value.dtype != torch.int64 or (not value.is_meta and value.numel() == 1 and value < 0):
                raise ConversionError(f'{key} has to be a count of batches (int64)')
        elif not value.is_floating_point():
            raise ConversionError(f'{key} is {value.dtype}, a weight has to be floating-point')
        rank = next((rank for pattern, rank in _RANKS if re.fullmatch(pattern, key)), None)
        if rank is not None and value.ndim != rank:
            raise ConversionError(f'{key} has shape {tuple(value.shape)}, it needs {rank} dimension(s)')
        if not value.numel():
            raise ConversionError(f'{key} is empty: its shape is {tuple(value.shape)}')
        # One pass and no copy; NaN passes through. On the meta device there is nothing to look at.
        wide = value.detach().float() if value.dtype == torch.float16 else value.detach()  # before torch 2.2
        if not value.is_meta and not all(map(isfinite, torch.aminmax(wide))):
            raise ConversionError(f'{key} holds NaN or Inf')
