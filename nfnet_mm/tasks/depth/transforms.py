"""What NF-ResNets, Appendix H.2 does to NYU's images and depth maps."""

from collections.abc import Sequence

import cv2
import numpy as np
from mmcv.transforms import BaseTransform

from nfnet_mm.errors import UserError, check_number
from nfnet_mm.registry import TRANSFORMS


@TRANSFORMS.register_module()
class DownsampleCrop(BaseTransform):
    """Shrink image and depth map, then keep the centre: 640x480 -> 320x240 -> 304x228 (width x height).

    The image is averaged over areas. A depth map is sampled, never averaged: the mean of a foreground and a
    background depth is a place where nothing is.

    Args:
        scale: (width, height) to shrink to.
        size: (width, height) of the centre that is kept.
        full_depth: keep the depth map at its own resolution and only crop it to what the image shows, and have
            predictions resized to that: for evaluation on the original depths, as in Laina et al. 2016.

    Keys: reads ``img`` (H, W, 3) and, if there is one, ``gt_depth_map`` (H, W); changes both; sets ``img_shape``,
    ``pad_shape``, ``scale_factor`` and ``ori_shape`` (what a prediction is resized to).

    Raises:
        ValueError: ``size`` does not fit into ``scale``, or an image and a depth map of different sizes.

    Example:
        >>> image, depth = np.zeros((480, 640, 3), np.uint8), np.ones((480, 640), np.float32)
        >>> out = DownsampleCrop(full_depth=True)(dict(img=image, gt_depth_map=depth))
        >>> out['img'].shape, out['gt_depth_map'].shape
        ((228, 304, 3), (456, 608))
    """

    def __init__(
        self, scale: Sequence[int] = (320, 240), size: Sequence[int] = (304, 228), full_depth: bool = False
    ) -> None:
        self.scale, self.size, self.full_depth = tuple(scale), tuple(size), full_depth
        pairs = zip(self.size, self.scale)
        if not (len(self.scale) == len(self.size) == 2 and all(0 < inner <= outer for inner, outer in pairs)):
            raise UserError(f'size={self.size} must fit into scale={self.scale}, both (width, height)')

    def transform(self, results: dict) -> dict:
        """See the class.

        Raises:
            UserError: the depth map is not of the image's size.
        """
        height, width = results['img'].shape[:2]
        corner = [(outer - inner) // 2 for outer, inner in zip(self.scale, self.size)]
        box = (corner[0], corner[1], corner[0] + self.size[0], corner[1] + self.size[1])
        factor = (self.scale[0] / width, self.scale[1] / height)
        full_box = tuple(round(edge / factor[i % 2]) for i, edge in enumerate(box))

        def crop(array: np.ndarray, box: tuple[int, ...]) -> np.ndarray:
            return np.ascontiguousarray(array[box[1] : box[3], box[0] : box[2]])

        results['img'] = crop(cv2.resize(results['img'], self.scale, interpolation=cv2.INTER_AREA), box)
        depth = results.get('gt_depth_map')
        if depth is not None:
            if depth.shape[:2] != (height, width):
                sizes = f'{height} x {width} pixels, its depth map {depth.shape[0]} x {depth.shape[1]}'
                raise UserError(f'{results.get("img_path")}: the image is {sizes}')
            if not self.full_depth:
                depth = cv2.resize(depth, self.scale, interpolation=cv2.INTER_NEAREST)
            results['gt_depth_map'] = crop(depth, full_box if self.full_depth else box)
        shape = results['img'].shape[:2]
        full_shape = (full_box[3] - full_box[1], full_box[2] - full_box[0])
        ori_shape = full_shape if self.full_depth else shape
        return dict(results, img_shape=shape, pad_shape=shape, scale_factor=factor, ori_shape=ori_shape)

    def __repr__(self) -> str:
        return f'DownsampleCrop(scale={self.scale}, size={self.size}, full_depth={self.full_depth})'


def jitter_color(image: np.ndarray, gray: bool, brightness: float, saturation: float, hue: float) -> np.ndarray:
    """Make grey or not, then add brightness, multiply saturation and turn the hue.

    Args:
        image: (H, W, 3), BGR, uint8.
        gray: replace the colours by their luma; saturation and hue then change nothing.
        brightness: added, on a scale of 0 to 1.
        saturation: factor of the saturation in HSV, which is clipped to 1.
        hue: added to the hue, in turns of the colour circle.

    Returns:
        A new image of the same shape and dtype.

    Example:
        >>> jitter_color(np.uint8([[[0, 0, 200]]]), False, 0.0, 1.0, 1 / 3).tolist()  # red to green
        [[[0, 200, 0]]]
        >>> jitter_color(np.uint8([[[100, 100, 200]]]), False, 0.0, 0.5, 0.0).tolist()
        [[[150, 150, 200]]]
    """
    x: np.ndarray = image.astype(np.float32) / 255
    if gray:
        x = cv2.cvtColor(cv2.cvtColor(x, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    x = np.clip(x + np.float32(brightness), 0, 1)
    if not gray:
        x = cv2.cvtColor(x, cv2.COLOR_BGR2HSV)
        x[..., 0] = (x[..., 0] + 360 * hue) % 360
        x[..., 1] = np.minimum(x[..., 1] * saturation, 1)
        x = cv2.cvtColor(x, cv2.COLOR_HSV2BGR)
    return np.rint(x * 255).clip(0, 255).astype(np.uint8)


@TRANSFORMS.register_module()
class DepthColorJitter(BaseTransform):
    """The random colours of NF-ResNets, Appendix H.2, see :func:`jitter_color`; the depth map stays as it is.

    Args:
        gray_prob: probability of a grey image.
        brightness: largest brightness added or taken away, of 1.
        saturation: range of the factor.
        hue: largest turn of the hue either way, of a full circle; at most 0.5.

    Keys: changes ``img`` (H, W, 3), BGR uint8.

    Raises:
        ValueError: a probability or range that is none, or an image that is not (H, W, 3) uint8.
    """

    def __init__(
        self,
        gray_prob: float = 0.3,
        brightness: float = 0.1255,
        saturation: Sequence[float] = (0.5, 1.5),
        hue: float = 0.2,
    ) -> None:
        check_number('gray_prob', gray_prob, '[0, 1]')
        check_number('brightness', brightness, '[0, 1]')
        check_number('hue', hue, '[0, 0.5]')
        if not (len(saturation) == 2 and 0 <= saturation[0] <= saturation[1]):
            raise UserError(f'saturation={saturation!r} must be a range (low, high) of factors from 0')
        self.gray_prob, self.brightness, self.hue = gray_prob, brightness, hue
        self.saturation = (saturation[0], saturation[1])

    def transform(self, results: dict) -> dict:
        """See the class.

        Raises:
            UserError: an image that is not (H, W, 3) uint8.
        """
        image = results['img']
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            got = f'got {image.shape} {image.dtype}'
            raise UserError(f'{results.get("img_path")}: DepthColorJitter takes (H, W, 3) uint8 images, {got}')
        uniform = np.random.uniform
        gray, brightness = uniform() < self.gray_prob, uniform(-self.brightness, self.brightness)
        saturation, hue = uniform(*self.saturation), uniform(-self.hue, self.hue)
        results['img'] = jitter_color(image, gray, brightness, saturation, hue)
        return results

    def __repr__(self) -> str:
        names = ('gray_prob', 'brightness', 'saturation', 'hue')
        return f'DepthColorJitter({", ".join(f"{name}={getattr(self, name)}" for name in names)})'
