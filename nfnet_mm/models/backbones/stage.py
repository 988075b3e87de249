"""A single stage of a normalizer-free network, for detectors whose heads run one."""

from collections.abc import Mapping
from typing import Any

from mmengine.model import BaseModule
from torch import Tensor, nn

from nfnet_mm.errors import UserError, check_positive, is_integer
from nfnet_mm.registry import MODELS

from .base import NFBackbone
from .block import Stage
from .plan import NUM_STAGES, plan_blocks

# What a network's config may say besides its variant; the rest of a backbone's arguments are not a single stage's.
_SHARED = ('type', 'arch', 'depth', 'attention', 'act', 'alpha', 'drop_path_rate', 'with_cp')


@MODELS.register_module()
class NFStage(BaseModule):
    """One stage of a normalizer-free network as a module of its own.

    Such as the last one on the regions of a detector: the C4 heads of Faster R-CNN and Mask R-CNN, where mmdet has its
    ``ResLayer``. Its blocks have the betas, drop rates and names (``stages.3.0.conv0.weight``) that they have in the
    whole network, so that its weights are the network's.

    Args:
        backbone: config of the network, ``type`` and what describes the variant: ``arch``, ``depth``, ``attention``,
            ``act``, ``alpha``, ``drop_path_rate`` (the whole network's) and ``with_cp``.
        stage: which stage, 0-3.
        stride: of its first block; the variant's own by default.
        dilation: of its 3x3 convs.
        activate: end with the activation and its gain. A pre-activation network's stages end without, so that a linear
            layer right behind one reads it activated; without, this is exactly the backbone's output ``stage``.
        init_cfg: initialisation; ``dict(type='nfnet_mm.NFPretrained', checkpoint=...)`` takes its stage from a file of
            the whole network.

    Attributes:
        in_channels, out_channels: of its input and output.

    Shape: (N, in_channels, H, W) -> (N, out_channels, ceil(H / stride), ceil(W / stride)).

    Raises:
        UserError: an argument is out of range or no argument of a single stage; the message quotes it.

    Example:
        >>> import torch
        >>> head = NFStage(dict(type='nfnet_mm.NFNet', arch='nano'), stage=3, stride=2)
        >>> head.in_channels, head.out_channels, tuple(head(torch.zeros(5, 96, 14, 14)).shape)
        (96, 128, (5, 128, 7, 7))
    """

    def __init__(
        self,
        backbone: Mapping[str, Any],
        stage: int = 3,
        stride: int | None = None,
        dilation: int = 1,
        activate: bool = True,
        init_cfg: dict | list | None = None,
    ):
        super().__init__(init_cfg=init_cfg)
        if not isinstance(backbone, Mapping) or 'type' not in backbone:
            raise UserError(f"backbone={backbone!r} must be a config such as dict(type='nfnet_mm.NFNet', arch='F0')")
        for key, value in backbone.items():
            if key not in _SHARED:
                known = f'known here: {", ".join(_SHARED)}'
                raise UserError(f'backbone.{key}={value!r} is of a whole network, not of one stage; {known}')
        if not is_integer(stage) or not 0 <= stage < NUM_STAGES:
            raise UserError(f'stage={stage!r} is out of range: 0-{NUM_STAGES - 1} are the stages')
        network = MODELS.build(dict(backbone, out_indices=(0,)))  # its smallest part, which knows all that is shared
        if not isinstance(network, NFBackbone):
            raise UserError(
                f'backbone.type={backbone["type"]!r} is none of a normalizer-free network: '
                'nfnet_mm.NFNet, nfnet_mm.NFResNet, nfnet_mm.NFRegNet'
            )
        self.arch, self.act, self.with_cp = network.arch, network.act, network.with_cp_of_stages()[stage]
        self.stage, self.activate, self.feature_gain = stage, activate, network.feature_gain
        self.in_channels, self.out_channels = (self.arch.stem_channels[-1], *self.arch.widths)[stage : stage + 2]
        self.stride = check_positive('stride', self.arch.strides[stage] if stride is None else stride)
        strides, dilations = list(self.arch.strides), [1] * NUM_STAGES
        strides[stage], dilations[stage] = self.stride, check_positive('dilation', dilation)
        plan = plan_blocks(self.arch, network.alpha, network.drop_path_rate, strides, dilations)
        blocks = (network.build_block(block) for block in plan if block.stage == stage)
        self.stages = nn.ModuleDict({str(stage): Stage(blocks)})

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> (N, out_channels, ceil(H / stride), ceil(W / stride))."""
        if x.dim() != 4 or x.shape[1] != self.in_channels:
            takes = f'takes features of shape (N, {self.in_channels}, H, W), the input of stage {self.stage}'
            raise UserError(f'{type(self).__name__} {takes}, got {tuple(x.shape)}')
        x = self.stages[str(self.stage)](x, self.with_cp)
        return self.act(x) * self.feature_gain if self.activate else x
