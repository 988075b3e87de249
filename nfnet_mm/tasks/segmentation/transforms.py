"""What NF-ResNets, Appendix H.1 does to Pascal VOC's images."""

from collections.abc import Sequence

import mmcv
import numpy as np
from mmcv.transforms import BaseTransform

from nfnet_mm.errors import UserError
from nfnet_mm.registry import TRANSFORMS


@TRANSFORMS.register_module()
class RandomScale(BaseTransform):
    """Scale image and label map by one factor of their own size, drawn uniformly.

    (mmcv's ``RandomResize`` draws a factor of a fixed size instead.)

    Args:
        scales: (lowest, highest) factor.

    Keys: reads and changes ``img`` (H, W, 3), bilinear, and ``gt_seg_map`` (H, W), nearest; sets ``img_shape``,
    ``scale_factor`` (width, height) and ``keep_ratio``.

    Raises:
        ValueError: not two positive numbers in order.

    Example:
        >>> out = RandomScale((2, 2))(dict(img=np.zeros((3, 4, 3), np.uint8)))
        >>> out['img'].shape, out['scale_factor']
        ((6, 8, 3), (2.0, 2.0))
    """

    def __init__(self, scales: Sequence[float] = (0.5, 2.0)) -> None:
        if len(scales) != 2 or not 0 < scales[0] <= scales[1]:
            raise UserError(f'scales={scales!r} must be two positive numbers, the lower first')
        self.scales = (scales[0], scales[1])

    def transform(self, results: dict) -> dict:
        factor = np.random.uniform(*self.scales)
        height, width = results['img'].shape[:2]
        size = max(round(width * factor), 1), max(round(height * factor), 1)
        results['img'] = mmcv.imresize(results['img'], size)
        if 'gt_seg_map' in results:
            results['gt_seg_map'] = mmcv.imresize(results['gt_seg_map'], size, interpolation='nearest')
        factors = (size[0] / width, size[1] / height)
        results.update(img_shape=results['img'].shape[:2], scale_factor=factors, keep_ratio=True)
        return results


@TRANSFORMS.register_module()
class CenterCropPad(BaseTransform):
    """The centre of image and label map at exactly ``size``; what lies outside the image is filled and ignored.

    The crop is what is evaluated: ``ori_shape`` becomes the crop's, so that predictions stay on its pixels. (mmcv's
    ``CenterCrop`` leaves the image's, and predictions are then stretched to that.)

    Args:
        size: (height, width) or one number for both.
        fill: BGR of padded pixels, ImageNet's mean by default, which normalises to zero.
        ignore: label of padded pixels, the loss's and metric's ``ignore_index``.

    Keys: reads and changes ``img`` (H, W, 3) and ``gt_seg_map`` (H, W); sets ``img_shape``, ``pad_shape`` and
    ``ori_shape``.

    Raises:
        ValueError: ``size`` is not positive.

    Example:
        >>> out = CenterCropPad(4)(dict(img=np.zeros((2, 9, 3), np.uint8), gt_seg_map=np.zeros((2, 9), np.uint8)))
        >>> out['gt_seg_map'].tolist()
        [[255, 255, 255, 255], [0, 0, 0, 0], [0, 0, 0, 0], [255, 255, 255, 255]]
    """

    def __init__(
        self, size: int | Sequence[int] = 513, fill: Sequence[float] = (103.53, 116.28, 123.675), ignore: int = 255
    ) -> None:
        self.size = (size, size) if isinstance(size, int) else tuple(size)
        if len(self.size) != 2 or min(self.size) < 1:
            raise UserError(f'size={size!r} must be a positive integer, or (height, width)')
        self.fill, self.ignore = fill, ignore

    def _cut(self, array: np.ndarray, fill: int | Sequence[float]) -> np.ndarray:
        out = np.empty(self.size + array.shape[2:], array.dtype)
        out[...] = np.round(fill) if array.dtype == np.uint8 else fill
        source, target = [], []
        for have, want in zip(array.shape, self.size):
            start = abs(have - want) // 2
            inside = slice(start, start + min(have, want))
            source.append(inside if have > want else slice(None))
            target.append(slice(None) if have > want else inside)
        out[tuple(target)] = array[tuple(source)]
        return out

    def transform(self, results: dict) -> dict:
        results['img'] = self._cut(results['img'], self.fill)
        if 'gt_seg_map' in results:
            results['gt_seg_map'] = self._cut(results['gt_seg_map'], self.ignore)
        results.update(img_shape=self.size, pad_shape=self.size, ori_shape=self.size)
        return results
