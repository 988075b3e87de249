"""Signal propagation plots as numbers (NF-ResNets, section 3 and Appendix F): what leaves each residual block."""

import csv
import io
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn

from nfnet_mm.errors import UserError, short, write_text
from nfnet_mm.models.backbones.base import NFBackbone
from nfnet_mm.models.backbones.batch_norm import BNBlock
from nfnet_mm.models.layers import WSConv2d

from .predicted import activated_variance, predict, standardised_power
from .signal_blocks import Block, Seen, branch_names, branch_of, find_blocks, undisturbed, watched


@dataclass
class BlockSignal:
    """What was measured of one block, with what was expected.

    Attributes:
        block: name of its module in the backbone.
        stage, index: its place.
        avg_sq_mean: mean over channels of the squared mean of its output over images and places.
        avg_var: mean over channels of the variance of its output over images and places.
        res_avg_var: the same of the end of its residual branch, before what scales it; NaN where it cannot be told.
        predicted_var: what ``avg_var`` is at initialisation, by calculation (:func:`~.predicted.predict`): in
            normalizer-free networks and pre-activation ones with BatchNorm; NaN in others.
        planned_var: what the papers plan, 1 + alpha^2 for every block of the stage so far; NaN in other networks.
    """

    block: str
    stage: int
    index: int
    avg_sq_mean: float
    avg_var: float
    res_avg_var: float
    predicted_var: float = math.nan
    planned_var: float = math.nan


def channel_statistics(x: Tensor) -> tuple[float, float]:
    """(average channel squared mean, average channel variance) of a signal, computed in float32 or better.

    Args:
        x: (N, C, H, W); or (N, ..., C) of any other number of dimensions, as tokens are.

    Example:
        >>> [round(value, 4) for value in channel_statistics(torch.tensor([0., 2., 3., 3.]).view(1, 2, 1, 2))]
        [5.0, 0.5]
    """
    x = x if x.dtype == torch.float64 else x.float()
    rows = x.transpose(0, 1) if x.dim() == 4 else x.flatten(0, -2).t()
    rows = rows.reshape(rows.shape[0], -1)
    # two passes of these take a tenth of the time of torch.var_mean on a CPU
    mean = rows.mean(1, keepdim=True)
    variance = torch.linalg.vector_norm(rows - mean, dim=1).square() / rows.shape[1]
    return float(mean.square().mean()), float(variance.mean())


def signal_propagation(model: nn.Module, images: Tensor) -> list[BlockSignal]:
    """Run a model once, and tell what leaves each residual block of its backbone.

    The model is as it was afterwards: its mode, averages and random numbers, too. Dropout and stochastic depth are off.
    BatchNorm takes the batch's statistics if the model is in training mode, as at initialisation, when its averages
    are none yet, and its averages in eval mode. SkipInit scalars are as they are: zero at initialisation, where
    :func:`~.signal_blocks.open_branches` shows what they will let through.

    Args:
        model: a backbone, or a model that has one as ``backbone``.
        images: (N, 3, H, W), normalised; moved to the model's device and dtype.

    Returns:
        one row for each block, in order.

    Raises:
        UserError: the model has no blocks, or does not run on such images.

    Example:
        >>> from nfnet_mm.models.backbones import NFResNet
        >>> rows = signal_propagation(NFResNet(depth=26), torch.randn(2, 3, 32, 32))
        >>> len(rows), rows[0].block, rows[0].planned_var
        (8, 'stages.0.0', 1.04)
    """
    backbone = getattr(model, 'backbone', model)
    if not isinstance(backbone, nn.Module) or not isinstance(images, Tensor) or images.dim() != 4:
        what = f'{type(model).__name__} and {tuple(getattr(images, "shape", ()))}'
        raise UserError(f'signal_propagation takes a model and images of shape (N, C, H, W), got {what}')
    blocks, rows = find_blocks(backbone), []
    shares: list[float] = []  # of each block, what pooling in its shortcut leaves of the variance
    first = 1.0  # the variance of the first block's scaled activation

    def observe(seen: Seen) -> None:
        nonlocal first
        squared, variance = channel_statistics(seen.y)
        branch = branch_of(seen)
        residual = math.nan if branch is None else channel_statistics(branch)[1]
        block = seen.block
        rows.append(BlockSignal(block.name, block.stage, block.index, squared, variance, residual))
        share, shortcut = 1.0, seen.output('conv_shortcut')
        if isinstance(backbone, NFBackbone) and shortcut is not None:
            if _pools(block):
                pooled = channel_statistics(seen.calls['conv_shortcut'].inputs[0])[1]
                share = pooled / (channel_statistics(backbone.act(seen.x))[1] or math.nan)
            conv = block.module.conv_shortcut
            if len(rows) == 1 and isinstance(conv, WSConv2d):
                # as the shortcut's conv found it: what all channels have in common does not pass
                passed = conv.input_scale / backbone.act_gain  # not 1 if that is a mistake, which is not predicted
                first = channel_statistics(shortcut)[1] / (share * _scale_of_shortcut(block) * passed**2)
        shares.append(share)

    weight = next((p for p in backbone.parameters() if p.is_floating_point()), images)
    with undisturbed(backbone), watched(blocks, observe, branch_names):
        try:
            backbone(images.to(weight.device, weight.dtype))
        except UserError:
            raise
        except Exception as error:  # of another package's network
            what = f'{type(backbone).__name__} does not run on images of shape {tuple(images.shape)}'
            raise UserError(f'{what}: {short(error)}') from error
    if isinstance(backbone, NFBackbone):
        plan = [block.spec for block in blocks if block.spec is not None][: len(rows)]
        found = predict(plan, backbone.act, backbone.act_gain, first, shares, map(_scalar, blocks))
        for row, spec, one in zip(rows, plan, found):
            row.predicted_var, row.planned_var = one.variance, spec.out_variance
    elif blocks and isinstance(blocks[0].module, BNBlock):
        for row, variance in zip(rows, _predict_batch_norm(blocks)):
            row.predicted_var = variance
    return rows


def _pools(block: Block) -> bool:
    return block.spec is not None and block.spec.arch.shortcut_pool and block.spec.stride > 1


def _scale_of_shortcut(block: Block) -> float:
    """By what the standardised conv of a shortcut multiplies the variance of what it reads, at initialisation."""
    return standardised_power(block.spec, block.spec.in_channels) if block.spec is not None else 1.0


def _scalar(block: Block) -> float:
    """What multiplies the branch beside alpha: the SkipInit scalar, or the gains of the last conv, which begin so."""
    skip = getattr(block.module, 'skip_gain', None)
    gain = getattr(getattr(block.module, 'conv2', None), 'gain', None)
    if isinstance(skip, Tensor):
        return float(skip)
    return float(gain.double().square().mean()) ** 0.5 if isinstance(gain, Tensor) else 1.0


def _predict_batch_norm(blocks: Sequence[Block]) -> Iterable[float]:
    """The variances of a pre-activation network in training mode: every conv reads unit Gaussians, normed."""
    variance = 1.0
    for block in blocks:
        module, spec = block.module, block.spec
        assert isinstance(module, BNBlock) and spec is not None
        read = activated_variance(module.act, 1.0) if module.norm_first else 1.0
        if module.conv_shortcut is not None:
            share = 1 / spec.stride**2 if spec.arch.shortcut_pool else 1.0
            variance = read * share * _power(module.conv_shortcut)
        gate = 0.25 if module.attention is not None else 1.0
        variance += read * gate * _power(module.conv2)
        yield variance


def _power(conv: nn.Conv2d) -> float:
    """The mean over output channels of a kernel's sum of squares."""
    return float(conv.weight.detach().double().square().flatten(1).sum(1).mean())


def write_csv(path: str | os.PathLike, signals: Sequence[tuple[str, Sequence[BlockSignal]]]) -> None:
    """Write the rows of several models to one file, a column ``model`` before the others; what is unknown is empty.

    Raises:
        UserError: it cannot be written.
    """
    text = io.StringIO()
    names = [field.name for field in fields(BlockSignal)]
    writer = csv.writer(text, lineterminator='\n')
    writer.writerow(['model', *names])
    for model, rows in signals:
        for row in rows:
            values = [getattr(row, name) for name in names]
            writer.writerow([model, *('' if value != value else value for value in values)])
    write_text(path, text.getvalue())
