"""What all backbones share: stem, stages, outputs, freezing, checkpointing; and what the normalizer-free ones do."""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from mmengine.logging import print_log
from mmengine.model import BaseModule
from torch import Tensor, nn

from nfnet_mm.errors import UserError, check_positive, is_integer, short

from ..layers import WSConv2d, activation_gain, conv_of_activation, get_activation, max_pool2d_same
from ..layers.activations import Activation, is_random
from .block import NFBlock, Stage
from .plan import NUM_STAGES, BlockSpec, NFArch, check_attention, plan_blocks


class Stem(nn.Module):
    """The convs before the first stage, activations between them; max pooling at the end for some.

    Args:
        arch: of the network.
        convs: in order.
        act: elementwise activation.
        norms: before the activations, the first behind the first conv; none by default.
        ends_active: an activation behind the last conv, too, as blocks want that do not begin with one.

    Shape: (N, in_channels, H, W) -> (N, arch.stem_channels[-1], ceil(H / s), ceil(W / s)), s = arch.stem_stride.
    """

    def __init__(
        self,
        arch: NFArch,
        convs: Iterable[nn.Module],
        act: Activation,
        norms: Iterable[nn.Module] = (),
        ends_active: bool = False,
    ):
        super().__init__()
        self.act, self.pool, self.num_convs = act, arch.stem_pool, len(arch.stem_channels)
        self.num_acts = self.num_convs - (not ends_active)
        for name, modules in (('conv', convs), ('bn', norms)):
            for i, module in enumerate(modules):
                setattr(self, f'{name}{i}', module)

    def forward(self, x: Tensor, recompute_acts: bool = False) -> Tensor:
        """(N, in_channels, H, W) images -> (N, C, ceil(H / 4), ceil(W / 4)) features, or at the stem's own stride.

        ``recompute_acts``: run the activations again in the backward pass, where it can be.
        """
        x = getattr(self, 'conv0')(x)  # noqa: B009  # by its type a tensor
        for i in range(1, self.num_convs):
            x = conv_of_activation(getattr(self, f'conv{i}'), self.act, self.normed(x, i - 1), recompute_acts)
        if self.num_acts == self.num_convs:
            x = self.act(self.normed(x, self.num_convs - 1))
        if self.pool is None:
            return x
        return max_pool2d_same(x, 3, 2) if self.pool == 'same' else nn.functional.max_pool2d(x, 3, 2, 1)

    def normed(self, x: Tensor, i: int) -> Tensor:
        """What activation ``i`` reads, from the output of conv ``i``: (N, C, H, W), the shape stays."""
        return getattr(self, f'bn{i}')(x) if hasattr(self, f'bn{i}') else x


class Backbone(BaseModule):
    """A network up to its classification feature; a subclass says what its parts are.

    Args:
        arch: the resolved variant.
        in_channels: channels of the images.
        out_indices: which features to return. 0-3 are the outputs of the four stages, the sums of shortcut and branch
            before any activation (but in networks whose blocks end with one): a stage of d blocks is planned to end at
            a variance of 1 + d * alpha^2, which grows with its depth (``BlockSpec.out_variance``). 4 is the
            classification feature, the scaled activation of the final conv where the family has one, else of the last
            stage; the final conv exists only if 4 is asked for.
        frozen_stages: -1 trains everything, 0 freezes the stem, i the stem and the first i stages.
        strides: stride of each stage's first block; the variant's own by default.
        dilations: dilation of each stage's 3x3 convs.
        with_cp: what to compute again in the backward pass instead of keeping it: False, nothing but standardised
            weights and padded copies; ``'act'`` (normalizer-free networks), the activations, which costs a few per cent
            of a step; True, whole blocks, which costs a third. Or four of these, one for each stage, the first of
            which is also the stem's. ``'act'`` does not go with a random ``act``.
        act: name or elementwise callable, with any gain computed (see ``activation_gain``); the variant's own by
            default.
        alpha: scale of the residual branches.
        drop_path_rate: stochastic depth; grows linearly up to (excluding) this rate.
        init_cfg: initialisation, as everywhere in mmengine.

    Attributes:
        out_channels, out_strides: of the features returned, in order.

    Raises:
        UserError: an argument is out of range; the message quotes it.
    """

    norm_eval = False
    with_cp_choices: tuple[bool | str, ...] = (False, True)
    random_start: str | None = None  # a warning of random weights, which a run repeats before its first iteration

    def __init__(
        self,
        arch: NFArch,
        in_channels: int = 3,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        frozen_stages: int = -1,
        strides: Sequence[int] | None = None,
        dilations: Sequence[int] = (1, 1, 1, 1),
        with_cp: bool | str | Sequence[bool | str] = False,
        act: str | Activation | None = None,
        alpha: float = 0.2,
        drop_path_rate: float = 0.0,
        init_cfg: dict | list | None = None,
    ):
        _check_init_cfg(init_cfg)
        super().__init__(init_cfg=init_cfg)
        self.arch = arch
        self.in_channels = check_positive('in_channels', in_channels)
        self.out_indices = _check_out_indices(out_indices)
        if not is_integer(frozen_stages) or not -1 <= frozen_stages <= NUM_STAGES:
            known = f'-1 freezes nothing, 0 the stem, 1-{NUM_STAGES} the stem and so many stages'
            raise UserError(f'frozen_stages={frozen_stages!r} is out of range: {known}')
        self.frozen_stages = int(frozen_stages)
        plan = plan_blocks(arch, alpha, drop_path_rate, strides, dilations)
        check_attention(plan)
        stages = [[block for block in plan if block.stage == stage] for stage in range(NUM_STAGES)]
        self.strides = tuple(blocks[0].stride for blocks in stages)
        self.dilations = tuple(blocks[0].dilation for blocks in stages)
        self.alpha, self.drop_path_rate = alpha, drop_path_rate
        self.with_cp = with_cp
        self.set_act(arch.act if act is None else act)
        self.with_cp_of_stages()  # refuses at once what cannot be

        self.stem = self.build_stem()
        # Stages past the last output would only be parameters without gradients, which DDP refuses.
        self.stages = nn.ModuleList(
            Stage(map(self.build_block, blocks)) for blocks in stages[: self.out_indices[-1] + 1]
        )
        self.feature_channels = arch.final_channels or arch.widths[-1]
        self.final_conv: nn.Module | None = None
        if NUM_STAGES in self.out_indices:
            self.build_feature()
        self.out_channels = tuple([*arch.widths, self.feature_channels][i] for i in self.out_indices)
        self.out_strides = tuple(stages[min(i, NUM_STAGES - 1)][0].out_stride for i in self.out_indices)
        self._freeze()

    def set_act(self, act: str | Activation) -> None:
        """Keep the activation, before anything is built."""
        self.act = get_activation(act)

    def build_stem(self) -> Stem:
        """The module before the stages."""
        raise NotImplementedError

    def build_block(self, spec: BlockSpec) -> nn.Module:
        """The module of a block of the plan."""
        raise NotImplementedError

    def build_feature(self) -> None:
        """Make what only the classification feature needs."""

    def feature(self, x: Tensor) -> Tensor:
        """The classification feature of the last stage's output."""
        raise NotImplementedError

    def stem_convs(self) -> Iterator[tuple[int, int, int, int]]:
        """(input channels, output channels, kernel, stride) of the stem's convs."""
        inputs = (self.in_channels, *self.arch.stem_channels)
        for channels, outputs, stride in zip(inputs, self.arch.stem_channels, self.arch.stem_strides):
            yield channels, outputs, self.arch.stem_kernel, stride

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """(N, in_channels, H, W) images -> one (N, C_i, ceil(H / s_i), ceil(W / s_i)) feature per out index."""
        if x.dim() != 4 or x.shape[1] != self.in_channels:
            takes = f'takes images of shape (N, {self.in_channels}, H, W) (in_channels={self.in_channels})'
            raise UserError(f'{type(self).__name__} {takes}, got {tuple(x.shape)}')
        with_cp = self.with_cp_of_stages()
        x = self.stem(x, with_cp[0] == 'act')
        outs = {}
        for i, stage in enumerate(self.stages):
            x = outs[i] = stage(x, with_cp[i])
        if NUM_STAGES in self.out_indices:
            outs[NUM_STAGES] = self.feature(x)
        return tuple(outs[i] for i in self.out_indices)

    def with_cp_of_stages(self) -> tuple[bool | str, ...]:
        """What each stage computes again in the backward pass; ``with_cp`` may be changed at any time."""
        given = self.with_cp
        values = (given,) * NUM_STAGES if isinstance(given, (bool, str)) else given
        for value in values if isinstance(values, Sequence) and len(values) == NUM_STAGES else (None,):
            if not isinstance(value, (bool, str)) or value not in self.with_cp_choices:
                known = ', '.join(map(repr, self.with_cp_choices))
                takes = f'{type(self).__name__} takes {known}, or {NUM_STAGES} of these, one for each stage'
                raise UserError(f'with_cp={given!r} is none of what can be computed again: {takes}')
        return tuple(values)

    def init_weights(self) -> None:
        """As ``init_cfg`` says; frozen random weights, which nothing would ever train, are warned of."""
        if self.frozen_stages >= 0 and self.init_cfg is None and not self.is_init:
            parts = ('the stem', 'the stem and the first stage', f'the stem and the first {self.frozen_stages} stages')
            what = parts[min(self.frozen_stages, 2)]
            said = f'{type(self).__name__}: frozen_stages={self.frozen_stages} freezes {what} with random weights'
            cure = (
                "Set init_cfg=dict(type='nfnet_mm.NFPretrained', checkpoint=...) on the backbone, or frozen_stages=-1"
            )
            self.random_start = f'{said}. {cure}'
            message = f'{said}, unless a checkpoint is loaded after this. {cure}'
            print_log(message, logger='current', level=logging.WARNING)
        try:
            super().init_weights()
        except (KeyError, TypeError) as error:  # mmengine's, of a type that there is not, or its arguments
            raise UserError(f'init_cfg={self.init_cfg!r} cannot be done: {short(error)}') from error

    def train(self, mode: bool = True) -> 'Backbone':
        """As usual, but frozen stages stay in eval mode, and with ``norm_eval`` so does every BatchNorm."""
        super().train(mode)
        if self.norm_eval:
            for module in self.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        self._freeze()
        return self

    def _freeze(self) -> None:
        for part in [self.stem, *self.stages][: self.frozen_stages + 1]:
            part.eval()
            part.requires_grad_(False)


class NFBackbone(Backbone):
    """A normalizer-free network up to its classification feature; see :class:`Backbone` for the arguments."""

    with_cp_choices = (False, True, 'act')
    act_is_random = False

    def with_cp_of_stages(self) -> tuple[bool | str, ...]:
        """As for all; a random activation cannot be run again by itself, with other values."""
        values = super().with_cp_of_stages()
        if 'act' in values and self.act_is_random:
            instead = 'take with_cp=True, which has it draw the same again'
            raise UserError(f'with_cp={self.with_cp!r} does not go with act={self.act!r}, which is random: {instead}')
        return values

    def set_act(self, act: str | Activation) -> None:
        """Keep the activation and its gain."""
        self.act_gain = activation_gain(act)
        # timm's dialect has the gain before the last activation, the authors' after it
        self.feature_gain = 1.0 if self.arch.gain_in_conv else self.act_gain
        super().set_act(act)
        self.act_is_random = is_random(self.act)

    def build_stem(self) -> Stem:
        """Standardised convs; the image is at unit variance as it comes."""
        arch, convs = self.arch, []
        for i, (inputs, outputs, kernel, stride) in enumerate(self.stem_convs()):
            scale = self.act_gain if i > 0 or arch.gain_in_conv else 1.0  # timm's dialect scales the first all the same
            convs.append(WSConv2d(inputs, outputs, kernel, stride, 1, 1, scale, arch.dialect, arch.padding))
        return Stem(arch, convs, self.act)

    def build_block(self, spec: BlockSpec) -> NFBlock:
        """A normalizer-free block."""
        return NFBlock(spec, self.act, self.act_gain)

    def build_feature(self) -> None:
        """The final conv where the family has one."""
        arch, scale = self.arch, self.act_gain if self.arch.gain_in_conv else 1.0
        if arch.final_channels:
            self.final_conv = WSConv2d(
                arch.widths[-1], arch.final_channels, 1, 1, 1, 1, scale, arch.dialect, arch.padding
            )

    def feature(self, x: Tensor) -> Tensor:
        """The scaled activation, behind the final conv if there is one."""
        x = x if self.final_conv is None else self.final_conv(x)
        return self.act(x) * self.feature_gain


def _check_init_cfg(init_cfg: Any) -> None:
    """Raise UserError unless it is None, or as mmengine takes it; which type it names is looked up as it is built."""
    for one in init_cfg if isinstance(init_cfg, (list, tuple)) else [init_cfg]:
        if init_cfg is not None and not (isinstance(one, Mapping) and isinstance(one.get('type'), (str, type))):
            raise UserError(
                f"init_cfg={init_cfg!r} must be None, a dict such as dict(type='Kaiming'), or a list of such"
            )


def _check_out_indices(indices: Sequence[int]) -> tuple[int, ...]:
    known = f'0-{NUM_STAGES - 1} are the stages, {NUM_STAGES} the classification feature'
    if not isinstance(indices, Iterable) or isinstance(indices, str):
        example = (indices,) if is_integer(indices) else (0, 1, 2, 3)
        raise UserError(f'out_indices={indices!r} must be a sequence of integers ({known}), e.g. {example}')
    given, indices = indices, tuple(indices)
    for i in indices:
        if not is_integer(i) or not 0 <= i <= NUM_STAGES:
            raise UserError(f'out_indices={indices} holds {i!r}, which is out of range: {known}')
    if not indices or list(indices) != sorted(set(indices)):
        raise UserError(f'out_indices={given!r} must be increasing and not empty: {known}')
    return tuple(map(int, indices))
