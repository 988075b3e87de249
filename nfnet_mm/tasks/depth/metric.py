"""Depth errors over all pixels."""

from collections.abc import Sequence

import torch
from mmengine.evaluator import BaseMetric
from torch import Tensor

from nfnet_mm.errors import UserError
from nfnet_mm.registry import METRICS


def depth_error_sums(pred: Tensor, target: Tensor, min_depth: float, max_depth: float) -> Tensor:
    """What the depth metrics of several images add up from.

    Args:
        pred, target: of one shape, in metres.
        min_depth, max_depth: pixels whose target lies outside, or is not finite, do not count; predictions are clamped
            to this range.

    Returns:
        Six float64 sums over the valid pixels: their number, how many have max(pred / target, target / pred) below
        1.25, 1.25^2 and 1.25^3, the squared errors, and the errors relative to the target.

    Example:
        >>> depth_error_sums(torch.tensor([1., 3., 9.]), torch.tensor([1., 2., 0.]), 1e-3, 10.).tolist()
        [2.0, 1.0, 2.0, 2.0, 1.0, 0.5]
    """
    valid = target.isfinite() & (target >= min_depth) & (target <= max_depth)
    pred, target = pred[valid].double().clamp(min_depth, max_depth), target[valid].double()
    ratio, error = torch.maximum(pred / target, target / pred), pred - target
    counts = [(ratio < 1.25**power).sum().double() for power in (1, 2, 3)]
    return torch.stack([valid.sum().double(), *counts, error.square().sum(), (error.abs() / target).sum()])


@METRICS.register_module()
class PixelDepthMetric(BaseMetric):
    """The depth metrics of the papers, each over the pixels of all images pooled together.

    delta1, delta2, delta3 (percent), rms (metres) and rel (NF-ResNets, Table 7, as in Laina et al. 2016). mmseg's
    ``DepthMetric`` averages per-image figures instead (which makes rms smaller) and turns infinite at a prediction of
    0. Here predictions are clamped to [``min_depth``, ``max_depth``] first.

    Args:
        min_depth, max_depth: metres. The default maximum is the sensor's.
        collect_device, prefix: as in every metric.

    Raises:
        ValueError: an empty range, a prediction and a depth map of different sizes, or not one valid pixel.
    """

    def __init__(
        self, min_depth: float = 1e-3, max_depth: float = 10.0, collect_device: str = 'cpu', prefix: str | None = None
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        if not 0 < min_depth < max_depth:
            raise UserError(f'min_depth={min_depth!r} and max_depth={max_depth!r} must be 0 < min_depth < max_depth')
        self.min_depth, self.max_depth = min_depth, max_depth

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Keep six sums an image.

        Args:
            data_batch: not read.
            data_samples: each with ``pred_depth_map`` and ``gt_depth_map``, (H, W) or (1, H, W), in metres.

        Raises:
            UserError: the two maps of an image differ in shape.
        """
        for sample in data_samples:
            pred, target = (sample[key]['data'].squeeze() for key in ('pred_depth_map', 'gt_depth_map'))
            if pred.shape != target.shape:
                sizes = f'the prediction is {tuple(pred.shape)}, the depth map {tuple(target.shape)}'
                raise UserError(f'{sample.get("img_path")}: {sizes}')
            target = target.to(pred.device)
            self.results.append(depth_error_sums(pred, target, self.min_depth, self.max_depth).cpu())

    def compute_metrics(self, results: list) -> dict[str, float]:
        """The five figures from all images' sums: delta1 to delta3 in percent, rms in metres, and rel.

        Raises:
            UserError: no pixel of any image has a depth in the range.
        """
        count, *near, square, relative = sum(results, torch.zeros(6, dtype=torch.float64)).tolist()
        if not count:
            raise UserError(
                f'no pixel of {len(results)} images has a depth in [{self.min_depth}, {self.max_depth}] '
                'metres: is depth_rescale_factor that of the annotations (1e-3 for millimetres)?'
            )
        deltas = {f'delta{i}': 100 * part / count for i, part in enumerate(near, 1)}
        return {**deltas, 'rms': (square / count) ** 0.5, 'rel': relative / count}
