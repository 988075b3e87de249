"""The design of a network in numbers, and the plan of its blocks that follows from it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import prod
from numbers import Real
from typing import Any

from nfnet_mm.errors import UserError, check_number, check_positive, is_integer

from ..layers.activations import get_activation
from ..layers.ws_conv import DIALECTS, PADDINGS

NUM_STAGES = 4
METHODS = ('nf', 'bn', 'fixup', 'skipinit')


@dataclass(frozen=True)
class NFArch:
    """The design of one network, every number resolved; :func:`plan_blocks` makes its blocks of it.

    Raises:
        UserError: a number is out of range, or the groups are wider than a bottleneck; the message names the field.
    """

    widths: tuple[int, ...]  # final output channels of the four stages
    depths: tuple[int, ...]  # blocks of the four stages
    stem_channels: tuple[int, ...]  # of the stem's convs, in order
    stem_strides: tuple[int, ...]
    stem_kernel: int
    stem_pool: str | None  # 3x3 stride-2 max pooling after the stem: 'same', 'symmetric' (padding) or None
    strides: tuple[int, ...]  # of the stages
    bottleneck_ratio: float
    group_width: int | tuple[int, ...] | None  # channels of a group, one for all stages or one each; None: dense
    final_channels: int | None  # of the conv before the classifier, None where there is none
    act: str
    attention: str | None = None  # 'se', 'eca' or None
    se_ratio: float = 0.5  # hidden / input width of Squeeze-Excite
    se_divisor: int = 1  # the hidden width is a multiple of it
    width_divisor: int = 1  # the bottleneck's width, before groups, is a multiple of it
    inverted_bottleneck: bool = False  # sized from the input, and attention in it, before its last conv (RegNet)
    extra_conv: bool = False  # a second 3x3 conv in the bottleneck
    shortcut_pool: bool = False  # transitions pool by the stride, then convolve; else a strided 1x1 conv
    skip_init: bool = True  # a learned scalar per branch, zero at first; else the last conv's gain starts at zero
    dialect: str = 'authors'  # of the weight standardisation
    padding: str = 'same'  # TensorFlow's rule, or 'symmetric'
    gain_in_conv: bool = False  # the gain is in the conv before an activation (timm) or after the activation (authors)
    method: str = 'nf'  # what keeps the signal scaled: 'nf' (this package), or a baseline's 'bn', 'fixup' or 'skipinit'
    preact: bool = True  # with BatchNorm: activations begin the branches, or follow the convs and the sums
    norm_first: bool = True  # with BatchNorm before convs: it is before the activation there, or behind it

    def __post_init__(self) -> None:
        lengths = dict(widths=NUM_STAGES, depths=NUM_STAGES, strides=NUM_STAGES, stem_channels=None)
        if isinstance(self.group_width, (tuple, list)):
            lengths['group_width'] = NUM_STAGES
        for name, length in lengths.items():
            object.__setattr__(self, name, check_counts(name, getattr(self, name), length))
        strides = check_counts('stem_strides', self.stem_strides, len(self.stem_channels))
        object.__setattr__(self, 'stem_strides', strides)
        for name in ('stem_kernel', 'se_divisor', 'width_divisor'):
            object.__setattr__(self, name, check_positive(f'arch field {name}', getattr(self, name)))
        for name in ('group_width', 'final_channels'):
            value = getattr(self, name)
            if value is not None and not isinstance(value, tuple):
                self._check(name, is_count(value), 'a positive integer or None')
                object.__setattr__(self, name, int(value))
        get_activation(self.act)  # which raises for an unknown one
        for name in ('bottleneck_ratio', 'se_ratio'):
            value = getattr(self, name)
            self._check(name, isinstance(value, (int, float)) and 0 < value < 100, 'a positive number')
        known = dict(attention=('se', 'eca', None), stem_pool=(*PADDINGS, None), dialect=DIALECTS, padding=PADDINGS)
        known['method'] = METHODS
        for name, choices in known.items():
            value = getattr(self, name)
            self._check(name, (value is None or isinstance(value, str)) and value in choices, f'one of {choices}')
        switches = ('inverted_bottleneck', 'extra_conv', 'shortcut_pool', 'skip_init', 'gain_in_conv')
        for name in (*switches, 'preact', 'norm_first'):
            self._check(name, isinstance(getattr(self, name), bool), 'True or False')
        self._check('norm_first', self.preact or self.norm_first, 'True with preact=False')
        odd = self.padding == 'same' or self.stem_kernel % 2 == 1
        self._check('stem_kernel', odd, "odd with padding='symmetric', which an even one cannot have on both sides")
        for block in plan_blocks(self):
            self._check_block(block)

    def _check(self, name: str, good: bool, what: str) -> None:
        if not good:
            raise UserError(f'arch field {name}={getattr(self, name)!r} must be {what}')

    def _check_block(self, block: 'BlockSpec') -> None:
        """Raise UserError if a block has no channels."""
        ratio, shape = f'bottleneck_ratio={self.bottleneck_ratio}', f'with widths={self.widths}'
        if block.width < 1 and self.group_width is None:
            raise UserError(f'arch field {ratio} leaves nothing of the bottleneck of stage {block.stage} {shape}')
        if block.width < 1:
            too_wide = f'arch field group_width={self.group_width} is wider than the bottleneck of stage {block.stage}'
            raise UserError(f'{too_wide}: {shape} and {ratio} it must be smaller')

    @property
    def stem_stride(self) -> int:
        """The stem's stride in image pixels, its pooling included."""
        return prod(self.stem_strides) * (2 if self.stem_pool else 1)


def is_count(value: Any) -> bool:
    """Whether a value is a positive integer that torch can count to."""
    return is_integer(value) and 0 < value < 2**31


def check_counts(name: str, value: Any, length: int | None = None) -> tuple[int, ...]:
    """The value of a field of :class:`NFArch`, ``length`` positive integers, as a tuple.

    Raises:
        UserError: it is anything else.
    """
    good = isinstance(value, (tuple, list)) and len(value) == (length or len(value)) > 0 and all(map(is_count, value))
    if not good:
        raise UserError(f'arch field {name}={value!r} must be {length or "one or more"} positive integers')
    return tuple(map(int, value))


def round_to_multiple(value: float, divisor: int) -> int:
    """``value`` to the nearest multiple of ``divisor``, at least one; truncated where ``divisor`` is 1.

    Example:
        >>> round_to_multiple(36, 8), round_to_multiple(2.9, 1), round_to_multiple(1, 8)
        (40, 2, 8)
    """
    return max(divisor, int(value + divisor / 2) // divisor * divisor) if divisor > 1 else int(value)


@dataclass(frozen=True)
class BlockSpec:
    """One residual block of a network: its place, its shape and the numbers that scale its signal."""

    arch: NFArch
    stage: int
    index: int  # in its stage
    in_channels: int
    out_channels: int
    width: int  # channels of its 3x3 convs
    groups: int  # of its 3x3 convs
    stride: int  # of its first 3x3 conv
    dilation: int  # of its 3x3 convs
    out_stride: int  # of its output, in image pixels
    alpha: float  # scale of its branch
    in_variance: float  # expected variance of its input
    drop_path_rate: float  # probability of dropping a sample's branch in training

    @property
    def transition(self) -> bool:
        """Whether it begins a stage: its shortcut has a conv then, and starts from the scaled activations."""
        return self.index == 0

    @property
    def beta(self) -> float:
        """What brings its input to unit variance: 1 / expected standard deviation (NF-ResNets, section 4)."""
        return self.in_variance**-0.5

    @property
    def out_variance(self) -> float:
        """Expected variance of its output, where its branch has unit variance before alpha (NF-ResNets, section 4).

        A block adds alpha^2, but a transition, whose shortcut starts at unit variance, resets the variance to 1 first.
        """
        return (1.0 if self.transition else self.in_variance) + self.alpha**2

    @property
    def attention_channels(self) -> int:
        """Channels that its attention weighs: the bottleneck's where that is inverted, else the output's."""
        return self.width if self.arch.inverted_bottleneck else self.out_channels

    @property
    def se_hidden(self) -> int | None:
        """Hidden width of its Squeeze-Excite, None without one."""
        if self.arch.attention != 'se':
            return None
        return round_to_multiple(self.attention_channels * self.arch.se_ratio, self.arch.se_divisor)


def check_attention(blocks: Iterable[BlockSpec]) -> None:
    """Raise UserError if a block's Squeeze-Excite has no hidden channels."""
    for block in blocks:
        if block.se_hidden is not None and block.se_hidden < 1:
            what = f'the {block.attention_channels} channels that Squeeze-Excite weighs in stage {block.stage}'
            raise UserError(f'arch field se_ratio={block.arch.se_ratio} leaves nothing of {what}: it must be larger')


def plan_blocks(
    arch: NFArch,
    alpha: float = 0.2,
    drop_path_rate: float = 0.0,
    strides: Sequence[int] | None = None,
    dilations: Sequence[int] = (1, 1, 1, 1),
) -> list[BlockSpec]:
    """The blocks of a network in order, all four stages.

    Args:
        arch: the design.
        alpha: scale of the residual branches.
        drop_path_rate: of stochastic depth; block i of n has ``drop_path_rate * i / n``, so that the first has 0 and
            none the rate itself (the authors' code).
        strides: of each stage's first block; the design's own by default.
        dilations: of each stage's 3x3 convs.

    Raises:
        UserError: an argument is out of range; the message quotes it.

    Example:
        >>> from nfnet_mm.models.backbones.arch import resolve_arch
        >>> plan = plan_blocks(resolve_arch('NFNet', dict(depths=(1, 3, 1, 1))), drop_path_rate=0.6)
        >>> [(b.stage, b.index, round(b.beta, 4), round(b.drop_path_rate, 4)) for b in plan[:4]]
        [(0, 0, 1.0, 0.0), (1, 0, 0.9806, 0.1), (1, 1, 0.9806, 0.2), (1, 2, 0.9623, 0.3)]
    """
    if not isinstance(arch, NFArch):
        raise UserError(f"arch={arch!r} must be an NFArch, such as resolve_arch('NFNet', 'F0')")
    alpha = float(check_number('alpha', alpha, '(0, inf)'))
    if alpha > 1e15:
        raise UserError(f'alpha={alpha!r} is beyond what float32 holds the variances of; the papers have 0.2')
    if not isinstance(drop_path_rate, Real) or not 0 <= drop_path_rate < 1:
        raise UserError(f'drop_path_rate={drop_path_rate!r} must lie in [0, 1)')
    drop_path_rate = float(drop_path_rate)  # of a Fraction or NumPy's, too
    strides = _per_stage('strides', arch.strides if strides is None else strides)
    dilations = _per_stage('dilations', dilations)
    blocks: list[BlockSpec] = []
    channels, out_stride, variance, total = arch.stem_channels[-1], arch.stem_stride, 1.0, sum(arch.depths)
    for stage, (out_channels, depth) in enumerate(zip(arch.widths, arch.depths)):
        out_stride *= strides[stage]
        for index in range(depth):
            width, groups = _bottleneck(arch, stage, channels, first=not blocks)
            block = BlockSpec(
                arch=arch,
                stage=stage,
                index=index,
                in_channels=channels,
                out_channels=out_channels,
                width=width,
                groups=groups,
                stride=strides[stage] if index == 0 else 1,
                dilation=dilations[stage],
                out_stride=out_stride,
                alpha=alpha,
                in_variance=variance,
                drop_path_rate=drop_path_rate * len(blocks) / total,
            )
            blocks.append(block)
            channels, variance = out_channels, block.out_variance
    return blocks


def _bottleneck(arch: NFArch, stage: int, in_channels: int, first: bool) -> tuple[int, int]:
    """(channels, groups) of a block's 3x3 convs; ``first`` marks the network's very first block.

    A part of the output's channels (NFNets, Appendix C) or, inverted, a multiple of the input's, but as wide as the
    input in the first block (NF-ResNets, Appendix C); cut to whole groups.
    """
    if arch.inverted_bottleneck:
        width = in_channels * (1 if first else arch.bottleneck_ratio)
    else:
        width = arch.widths[stage] * arch.bottleneck_ratio
    width = round_to_multiple(width, arch.width_divisor)
    group = arch.group_width[stage] if isinstance(arch.group_width, tuple) else arch.group_width
    return (width, 1) if group is None else (width // group * group, width // group)


def _per_stage(name: str, values: Sequence[int]) -> tuple[int, ...]:
    found = tuple(values) if isinstance(values, Iterable) else ()
    if len(found) != NUM_STAGES:
        raise UserError(f'{name}={values!r} must have one entry for each of the {NUM_STAGES} stages')
    return tuple(check_positive(f'{name}[{i}]', v) for i, v in enumerate(found))
