"""The up-projection decoder of Laina et al. 2016, without multiplications by the zeros of unpooling."""

from collections.abc import Sequence
from typing import Any

import torch
from mmcv.cnn import build_norm_layer
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.models.utils import resize
from torch import Tensor, nn
from torch.nn import functional as F

from nfnet_mm.errors import UserError
from nfnet_mm.models.layers import WSConv2d, activation_gain
from nfnet_mm.registry import MODELS

RELU_GAIN = activation_gain('relu')


def _interleave(even_even: Tensor, even_odd: Tensor, odd_even: Tensor, odd_odd: Tensor) -> Tensor:
    """The map whose even rows' even columns are the first, and so on: four (N, C, H, W) -> (N, C, 2H, 2W)."""
    n, c, h, w = even_even.shape
    rows = (torch.stack((even_even, even_odd), -1), torch.stack((odd_even, odd_odd), -1))
    return torch.stack(rows, 3).view(n, c, 2 * h, 2 * w)


class _WSConv(WSConv2d):
    """:class:`WSConv2d` with any (height, width) of the kernel; an even side is padded by the caller."""

    def __init__(self, in_channels: int, out_channels: int, kernel: tuple[int, int], input_scale: float) -> None:
        super().__init__(in_channels, out_channels, 1, input_scale=input_scale)
        self.kernel_size, self.padding = kernel, ((kernel[0] - 1) // 2, (kernel[1] - 1) // 2)
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, *kernel))
        self.reset_parameters()


def _conv(in_channels: int, out_channels: int, kernel: tuple[int, int], input_scale: float | None) -> nn.Conv2d:
    """A weight-standardised conv, or (``input_scale`` None) a plain one for a normalisation to follow."""
    if input_scale is not None:
        return _WSConv(in_channels, out_channels, kernel, input_scale)
    padding = (kernel[0] - 1) // 2, (kernel[1] - 1) // 2
    conv = nn.Conv2d(in_channels, out_channels, kernel, padding=padding, bias=False)
    nn.init.kaiming_normal_(conv.weight, nonlinearity='relu')
    return conv


def _norm(cfg: dict | None, channels: int) -> nn.Module:
    return nn.Identity() if cfg is None else build_norm_layer(cfg, channels)[1]


class _OutputConv(nn.Conv2d):
    """A conv whose weights are divided by sqrt(fan-in) as they are applied.

    Its input is as large at every pixel (the sum of two unit-variance branches), so the curvature of the loss along
    plain weights grows with the fan-in, and the recipe's learning rate of 0.16 is beyond what SGD bears there.
    """

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, self._applied(), self.bias)

    def _applied(self) -> Tensor:
        return self.weight * self.weight[0].numel() ** -0.5

    def plain(self) -> nn.Conv2d:
        """A conv of the weights that are applied, as :func:`nfnet_mm.deploy.fold` puts it in the place of this one."""
        settings: Any = self.kernel_size, self.stride, self.padding
        conv = nn.Conv2d(self.in_channels, self.out_channels, *settings)
        conv.weight, conv.bias = nn.Parameter(self._applied().detach(), requires_grad=False), self.bias
        return conv


class UpConv(nn.Module):
    """Unpooling and a 5x5 conv, as four small convs whose outputs interleave (Laina et al. 2016, section 3.1).

    Three quarters of what the 5x5 kernel reads after unpooling are zeros. An output pixel of an even row sees real
    values under 3 of the 5 kernel rows, one of an odd row under 2; so do columns. The four kernels of 3x3, 3x2, 2x3
    and 2x2 that this makes are the parameters, 25 multiplications an input pixel instead of 100. Weight-standardised,
    each is standardised by itself: one standardisation of the 5x5 kernel would give the four kinds of pixels
    different variances, 9 : 6 : 6 : 4.

    Args:
        in_channels, out_channels: of the conv.
        input_scale: see :class:`WSConv2d`; None for plain convs without bias.

    Shape:
        (N, in_channels, H, W) -> (N, out_channels, 2H, 2W).
    """

    def __init__(self, in_channels: int, out_channels: int, input_scale: float | None = None) -> None:
        super().__init__()
        self.even_even, self.even_odd, self.odd_even, self.odd_odd = (
            _conv(in_channels, out_channels, (height, width), input_scale) for height in (3, 2) for width in (3, 2)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> (N, out_channels, 2H, 2W)."""
        # an odd row (column) reads the pixel at its own place and the next one, which past the border is zero
        padded = F.pad(x, (0, 1, 0, 1))
        even = self.even_even(x), self.even_odd(padded[:, :, :-1])
        return _interleave(*even, self.odd_even(padded[..., :-1]), self.odd_odd(padded))


class UpProjection(nn.Module):
    """One up-projection block: ReLU(conv3x3(ReLU(up_a(x))) + up_b(x)) (Laina et al. 2016, figure 2).

    Args:
        in_channels, out_channels: of the block.
        norm_cfg: the normalisation after each conv, e.g. ``dict(type='BN')``. None makes the block normalizer-free:
            every conv weight-standardised, with the gains of the activations it reads.
        input_scale: of the input, if normalizer-free.

    Shape:
        (N, in_channels, H, W) -> (N, out_channels, 2H, 2W).
    """

    def __init__(
        self, in_channels: int, out_channels: int, norm_cfg: dict | None = None, input_scale: float = 1.0
    ) -> None:
        super().__init__()
        free = norm_cfg is None
        # both branches' up-convolutions read the same input: one of twice the width
        self.up = UpConv(in_channels, 2 * out_channels, input_scale if free else None)
        self.conv = _conv(out_channels, out_channels, (3, 3), RELU_GAIN if free else None)
        self.up_norm, self.norm = (_norm(norm_cfg, width) for width in (2 * out_channels, out_channels))

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> (N, out_channels, 2H, 2W), not negative."""
        branch, shortcut = self.up_norm(self.up(x)).chunk(2, 1)
        return F.relu(self.norm(self.conv(F.relu(branch))) + shortcut)


@MODELS.register_module()
class UpProjectionHead(BaseDecodeHead):
    """Depth from the last feature by up-projections (Laina et al. 2016, section 3.1; NF-ResNets, Appendix H.2).

    A 1x1 conv, up-projection blocks that each double the size and halve the channels, and a 3x3 conv to one channel.
    The output is linear, in metres.

    Args:
        in_channels: of the feature, ``backbone.out_channels[in_index]``.
        channels: after the 1x1 conv.
        num_blocks: up-projection blocks.
        norm_cfg: as in :class:`UpProjection`; None (the default) for a normalizer-free head.
        loss_decode: one loss or several, called with (prediction, depth), both (N, 1, H, W) in metres.
        in_index: which feature; the last by default.
        **kwargs: of mmseg's ``BaseDecodeHead``.

    Shape:
        Features, of which (N, in_channels, H, W) is taken -> (N, 1, 2^num_blocks H, 2^num_blocks W). For the loss it is
        resized to the depth map, for a prediction to the image.

    Raises:
        ValueError: channels that cannot be halved so often, or a feature of other channels.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int = 1024,
        num_blocks: int = 4,
        norm_cfg: dict | None = None,
        loss_decode: dict | Sequence[dict] = dict(type='nfnet_mm.BerHuLoss'),
        init_cfg: dict | list | None = None,
        **kwargs: Any,
    ) -> None:
        if num_blocks < 1 or channels < 1 or channels % 2**num_blocks:
            raise UserError(
                f'channels={channels} must be a positive multiple of 2^{num_blocks}: each of the '
                f'num_blocks={num_blocks} up-projections halves them'
            )
        kwargs = dict(num_classes=1, out_channels=1, threshold=0.0, dropout_ratio=0, init_cfg=init_cfg, **kwargs)
        super().__init__(in_channels, channels // 2**num_blocks, norm_cfg=norm_cfg, loss_decode=loss_decode, **kwargs)
        self.reduce = _conv(in_channels, channels, (1, 1), 1.0 if norm_cfg is None else None)
        self.reduce_norm = _norm(norm_cfg, channels)
        # a block's output is the ReLU of a sum of two unit-variance branches
        self.blocks = nn.ModuleList(
            UpProjection(channels >> i, channels >> i + 1, norm_cfg, RELU_GAIN * 0.5**0.5 if i else 1.0)
            for i in range(num_blocks)
        )
        self.conv_seg = _OutputConv(self.channels, 1, 3, padding=1)
        nn.init.normal_(self.conv_seg.weight, std=0.1)
        nn.init.constant_(self.conv_seg.get_parameter('bias'), 0)

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Depths in metres, not bounded: (N, 1, 2^num_blocks H, 2^num_blocks W).

        Args:
            inputs: the backbone's features, of which ``in_index`` is (N, in_channels, H, W).

        Raises:
            UserError: a feature of another number of channels.
        """
        x = self._transform_inputs(inputs)
        if x.dim() != 4 or x.shape[1] != self.in_channels:
            takes = f'takes a feature (N, {self.in_channels}, H, W)'
            raise UserError(f'UpProjectionHead(in_channels={self.in_channels}) {takes}, got {tuple(x.shape)}')
        x = self.reduce_norm(self.reduce(x))
        for block in self.blocks:
            x = block(x)
        return self.conv_seg(x)

    def loss_by_feat(self, pred: Tensor, batch_data_samples: Sequence) -> dict[str, Tensor]:
        """Every loss by its name; equal names add up.

        Args:
            pred: (N, 1, h, w), in metres; resized to the depth maps (N, 1, H, W) of the samples.
            batch_data_samples: N samples with a ``gt_depth_map``.

        Raises:
            UserError: samples without depth maps.
        """
        if missing := [i for i, sample in enumerate(batch_data_samples) if 'gt_depth_map' not in sample]:
            raise UserError(
                f'the data samples {missing} have no gt_depth_map: the pipeline needs '
                "dict(type='LoadDepthAnnotation', depth_rescale_factor=1e-3)"
            )
        target = torch.stack([sample.gt_depth_map.data for sample in batch_data_samples])
        pred = resize(pred, size=target.shape[2:], mode='bilinear', align_corners=self.align_corners)
        losses: dict[str, Tensor] = {}
        for loss in self.loss_decode if isinstance(self.loss_decode, nn.ModuleList) else [self.loss_decode]:
            name = str(loss.loss_name)
            losses[name] = losses.get(name, 0) + loss(pred, target)
        return losses
