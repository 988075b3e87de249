"""The reverse Huber loss."""

from collections.abc import Callable

import torch
from mmengine.dist import all_reduce
from torch import Tensor, nn

from nfnet_mm.errors import UserError
from nfnet_mm.registry import MODELS


def berhu(
    error: Tensor, valid: Tensor, fraction: float = 0.2, reduce: Callable[[Tensor, str], None] | None = None
) -> Tensor:
    """Mean reverse Huber loss: |e| up to a threshold c, (e^2 + c^2) / 2c above it (Laina et al. 2016, section 3.2).

    c is ``fraction`` of the largest valid error and is a constant to the gradient. No value is read back to the host.

    Args:
        error: prediction minus target in metres, any shape.
        valid: bool, of the same shape: which errors count. The others get exactly no gradient, even where they are
            NaN or infinite.
        fraction: of the largest error, the threshold.
        reduce: called with a 0-d tensor and ``'max'`` or ``'mean'``, to combine it in place over processes.

    Returns:
        A 0-d tensor; 0 (with zero gradients) where nothing is valid.

    Example:
        >>> e = torch.tensor([0.5, -1., 5.])  # c = 1, so the last one costs (25 + 1) / 2
        >>> berhu(e, torch.tensor([True, True, True]))
        tensor(4.8333)
        >>> berhu(e, torch.tensor([True, True, False]), fraction=1.)
        tensor(0.7500)
    """
    size = torch.where(valid, error, 0.0).abs()
    threshold = size.detach().amax() * fraction if size.numel() else size.new_zeros(())
    count = valid.sum().to(size.dtype)
    if reduce is not None:
        reduce(threshold, 'max')
        reduce(count, 'mean')
    # with c = 0 every error is 0 and the first branch is taken; the second must still be finite in the backward pass
    c = threshold.clamp(min=torch.finfo(size.dtype).tiny ** 0.5)
    return torch.where(size <= threshold, size, (size * size + c * c) / (2 * c)).sum() / count.clamp(min=1)


@MODELS.register_module()
class BerHuLoss(nn.Module):
    """Reverse Huber loss on depth, in float32, over the pixels that have a depth (NF-ResNets, Appendix H.2).

    Over several processes the threshold is that of the whole batch, and the mean is over all its valid pixels, so
    that n processes compute what one would. (With gradient accumulation, 'batch' is what is processed at one time.)

    Args:
        fraction: of the largest error in the batch, the threshold; in (0, 1].
        min_depth, max_depth: metres; a target counts if it is finite, above the first and at most the second.
        loss_weight: factor.
        loss_name: under which it is logged; must begin with ``loss`` to be part of the sum.

    Shape:
        pred and target (N, 1, H, W) or (N, H, W), in metres -> 0-d.

    Raises:
        ValueError: ``fraction`` out of range, or shapes that differ.
    """

    def __init__(
        self,
        fraction: float = 0.2,
        min_depth: float = 0.0,
        max_depth: float = float('inf'),
        loss_weight: float = 1.0,
        loss_name: str = 'loss_berhu',
    ):
        super().__init__()
        if not 0 < fraction <= 1:
            raise UserError(f'fraction={fraction!r} must lie in (0, 1]')
        self.fraction, self.min_depth, self.max_depth = fraction, min_depth, max_depth
        self.loss_weight, self.loss_name = loss_weight, loss_name

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        """The weighted mean loss, a scalar, of two maps of depths in metres and of one shape, such as (N, 1, H, W).

        Raises:
            UserError: maps of different shapes.
        """
        if pred.shape != target.shape:
            got = f'a prediction {tuple(pred.shape)} and a target {tuple(target.shape)}'
            raise UserError(f'BerHuLoss compares maps of one shape, got {got}')
        target = target.float()
        valid = target.isfinite() & (target > self.min_depth) & (target <= self.max_depth)
        return self.loss_weight * berhu(pred.float() - target, valid, self.fraction, all_reduce)
