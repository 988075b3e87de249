"""What ImageNet's networks see of a picture: the training crop and the two test views, all resized bicubically.

The resize is TensorFlow's, with which the public weights were trained and tested: Keys' cubic with a = -0.5,
half-pixel centres and no antialiasing, to float32 that may leave 0-255. OpenCV's and torch's have a = -0.75, and
Pillow's antialiases.
"""

from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from mmcv.transforms import BaseTransform
from mmpretrain.datasets.transforms import processing

from nfnet_mm.errors import UserError, is_integer
from nfnet_mm.registry import TRANSFORMS

_MARGIN = 32  # pixels around a test view
_CHANNELS = 4  # as cv2 reads them
_ROWS = 64  # resized at a time: what they are made of stays in the processor's cache


def resize_bicubic(img: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize an image, without clipping what overshoots.

    Shape:
        (H, W) or (H, W, C) of any type, C up to 4 -> (height, width) or (height, width, C) float32.

    >>> step = np.float32([[0, 0, 100, 100]])[..., None].repeat(3, 2)
    >>> resize_bicubic(step, 1, 8)[0, :, 0].astype(float).round(2).tolist()
    [0.0, -2.19, -6.87, 20.31, 79.69, 106.87, 102.19, 100.0]
    """
    rows = _resize_rows(img, height)
    columns = cv2.transpose(_resize_rows(cv2.transpose(rows), width))
    return columns.reshape(height, width, *img.shape[2:])  # cv2 drops an axis of one channel


def resize_crop_32(img: np.ndarray, size: int) -> np.ndarray:
    """The NFNets' test view: the whole image as a square of ``size + 32`` pixels (the aspect changes), its centre.

    Shape:
        (H, W) or (H, W, C) of any type -> (size, size) or (size, size, C) float32, not clipped.
    """
    first = _MARGIN // 2
    view = resize_bicubic(img, size + _MARGIN, size + _MARGIN)
    return np.ascontiguousarray(view[first : first + size, first : first + size])


def crop_resize(img: np.ndarray, size: int) -> np.ndarray:
    """The ResNets' and NF-RegNets' test view: the central square of ``size / (size + 32)`` of the shorter side.

    Shape:
        (H, W) or (H, W, C) of any type -> (size, size) or (size, size, C) float32, not clipped.
    """
    height, width = img.shape[:2]
    scale = np.float32(min(height, width)) / np.float32(size + _MARGIN)
    side = max(int(scale * np.float32(size)), 1)
    top, left = (height - side + 1) // 2, (width - side + 1) // 2
    return resize_bicubic(img[top : top + side, left : left + side], size, size)


@TRANSFORMS.register_module()
class ResizeCrop32(BaseTransform):
    """The test view of :func:`resize_crop_32`.

    Required and modified keys: ``img`` (H, W) or (H, W, C), which becomes float32, and ``img_shape``.

    Args:
        size: pixels of a side.

    Raises:
        ValueError: the size is no positive integer, or the image has more than four channels.
    """

    view = staticmethod(resize_crop_32)

    def __init__(self, size: int) -> None:
        if not is_integer(size) or size < 1:
            raise UserError(f'size={size!r} must be a positive integer')
        self.size = size

    def transform(self, results: dict) -> dict:
        results['img'] = self.view(_checked(self, results['img']), self.size)
        results['img_shape'] = results['img'].shape[:2]
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(size={self.size})'


@TRANSFORMS.register_module()
class CropResize(ResizeCrop32):
    """The test view of :func:`crop_resize`; keys and arguments are those of :class:`ResizeCrop32`."""

    view = staticmethod(crop_resize)


@TRANSFORMS.register_module()
class RandomResizedCrop(processing.RandomResizedCrop):
    """mmpretrain's crop of a random area (0.08-1) and aspect ratio (3/4-4/3), resized by :func:`resize_bicubic`.

    Required and modified keys: ``img`` (H, W) or (H, W, C) and ``img_shape``.

    Args:
        scale: height and width of the result, or the side of a square.
        clip: cut the result off to uint8, which :class:`NFRandAugment` takes; False leaves float32 as it is, which
            ``mixing_collate`` takes, as in the authors' released code.
        kwargs: mmpretrain's ``crop_ratio_range``, ``aspect_ratio_range`` and ``max_attempts``.

    Raises:
        ValueError: the image has more than four channels.
    """

    def __init__(self, scale: int | tuple[int, int], clip: bool = True, **kwargs: Any) -> None:
        super().__init__(scale, **kwargs, interpolation='bicubic')
        self.clip = clip

    def transform(self, results: dict) -> dict:
        img = _checked(self, results['img'])
        top, left, height, width = self.rand_crop_params(img)
        img = resize_bicubic(img[top : top + height, left : left + width], *self.scale)
        results['img'] = np.clip(img, 0, 255, out=img).astype(np.uint8) if self.clip else img
        results['img_shape'] = img.shape[:2]
        return results

    def __repr__(self) -> str:
        return f'{super().__repr__()[:-1]}, clip={self.clip})'


def _checked(transform: BaseTransform, img: np.ndarray) -> np.ndarray:
    if img.ndim not in (2, 3) or not img.size or (img.ndim == 3 and img.shape[2] > _CHANNELS):
        what = f'images (H, W) or (H, W, C) of at most {_CHANNELS} channels'
        raise UserError(f'{type(transform).__name__} takes {what}, got {img.dtype} {img.shape}')
    return img


def _resize_rows(img: np.ndarray, height: int) -> np.ndarray:
    """(H, W, C) of any type -> (height, W, C) float32."""
    indices, weights = _taps(img.shape[0], height)
    flat = img.reshape(img.shape[0], -1)
    rows = np.empty((height, flat.shape[1]), np.float32)
    for first in range(0, height, _ROWS):
        some = slice(first, first + _ROWS)
        four = flat[indices[some]].astype(np.float32, copy=False)
        np.matmul(weights[some, None], four, out=rows[some, None])
    return rows.reshape(height, *img.shape[1:])


@lru_cache(maxsize=2048)  # crops have some hundreds of heights and widths
def _taps(before: int, after: int) -> tuple[np.ndarray, np.ndarray]:
    """The four pixels that make each of the ``after`` pixels of a side, and their weights, (after, 4) both."""
    scale = np.float32(before) / np.float32(after)
    centre = (np.arange(after, dtype=np.float32) + np.float32(0.5)) * scale - np.float32(0.5)
    first = np.floor(centre)
    t = np.rint((centre - first) * 1024) / 1024  # TensorFlow's table of the cubic has so many entries
    distance = np.abs(np.stack([t + 1, t, 1 - t, 2 - t], 1).astype(np.float32))
    near, far = (1.5 * distance - 2.5) * distance**2 + 1, ((2.5 - 0.5 * distance) * distance - 4) * distance + 2
    indices = first.astype(np.int64)[:, None] + np.arange(-1, 3)
    inside = (indices >= 0) & (indices < before)
    weights = np.where(distance < 1, near, far) * inside  # those outside count for nothing, and the rest for all
    return indices.clip(0, before - 1), (weights / weights.sum(1, keepdims=True)).astype(np.float32)
