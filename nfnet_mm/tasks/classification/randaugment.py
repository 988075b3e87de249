"""RandAugment as the NFNet recipe has it (NFNets, Appendix A.3; Cubuk et al. 2020): its own operations and scales.

The operations are pure functions of an RGB uint8 image (H, W, 3) and a level, 1 being full scale, to a new image. They
give the numbers of the authors' released ones, with which the public weights were trained: float32 results are cut
off, not rounded, and what was surely not meant (``contrast``, ``posterize``, ``solarize``) is kept.
"""

import math
from collections.abc import Callable, Sequence

import cv2
import numpy as np
from mmcv.transforms import BaseTransform

from nfnet_mm.errors import UserError, check_number, is_integer
from nfnet_mm.registry import TRANSFORMS

FILL = 128  # grey, wherever an operation uncovers or covers pixels
_IDENTITY = np.arange(256)
_LEVELS = _IDENTITY.astype(np.float32)
_NO_MAP = np.empty(0, np.int16)  # cv2.remap's second one, of fractions
_SMOOTH = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]], np.float32) / 13
_LUMA = np.array([[0.2989, 0.587, 0.114]], np.float32)


def auto_contrast(img: np.ndarray, level: float) -> np.ndarray:
    """(H, W, 3) uint8 in RGB -> the same: every channel is stretched to 0-255; ``level`` means nothing."""
    tables = []
    for channel in cv2.split(img):
        low, high, *_ = cv2.minMaxLoc(channel)
        scale = np.float32(255) / np.float32(high - low) if high > low else np.float32(1)
        tables.append(_LEVELS * scale + np.float32(-low) * scale if high > low else _LEVELS)
    return _look_up(img, *tables)


def equalize(img: np.ndarray, level: float) -> np.ndarray:
    """(H, W, 3) uint8 in RGB -> the same: every channel's histogram is flattened; ``level`` means nothing."""
    tables = []
    for channel in range(3):
        counts = cv2.calcHist([img], [channel], None, [256], [0, 256]).ravel().astype(np.int64)
        step = (counts.sum() - counts[counts.nonzero()[0][-1]]) // 255
        below = np.cumsum(counts) - counts
        tables.append((step // 2 + below) // step if step else _IDENTITY)
    return _look_up(img, *tables)


def invert(img: np.ndarray, level: float) -> np.ndarray:
    """(H, W, 3) uint8 in RGB -> the same: 255 less each value; ``level`` means nothing."""
    return 255 - img


def posterize(img: np.ndarray, level: float) -> np.ndarray:
    """Keep the highest ``4 * level`` bits: all at level 2, but one where that is none, or more than eight."""
    dropped = 8 - int(4 * level)
    dropped = dropped if 0 <= dropped < 8 else 7
    return img >> dropped << dropped


def solarize(img: np.ndarray, level: float) -> np.ndarray:
    """Invert what is at or above ``256 * level`` as an 8-bit number: all at level 1, the upper half at 1.5."""
    return _look_up(img, np.where(int(256 * level) % 256 > _IDENTITY, _IDENTITY, 255 - _IDENTITY))


def solarize_add(img: np.ndarray, level: float) -> np.ndarray:
    """Add ``110 * level`` to what is below 128."""
    return _look_up(img, np.where(_IDENTITY < 128, _IDENTITY + int(110 * level), _IDENTITY))


def color(img: np.ndarray, level: float) -> np.ndarray:
    """(H, W, 3) uint8 in RGB -> the same: blended with its grey version: all grey at ``level`` = 0, none at 1."""
    grey = cv2.merge([_grey(img)] * 3)  # broadcasting would take ten times as long
    return _cut_off(_blend(grey, img.astype(np.float32), level))


def contrast(img: np.ndarray, level: float) -> np.ndarray:
    """Move away from, or towards, a grey that depends on nothing but the size of the image."""
    return _look_up(img, _blend(np.float32(min(img.shape[0] * img.shape[1] // 256, 255)), _LEVELS, level))


def brightness(img: np.ndarray, level: float) -> np.ndarray:
    """(H, W, 3) uint8 in RGB -> the same: multiplied by ``level``."""
    return _look_up(img, _blend(np.float32(0), _LEVELS, level))


def sharpness(img: np.ndarray, level: float) -> np.ndarray:
    """(H, W, 3) uint8 in RGB -> the same: blended with a smoothed version: all smooth at ``level`` = 0, none at 1."""
    pixels = img.astype(np.float32)
    smooth = pixels.copy()  # its border stays
    smooth[1:-1, 1:-1] = np.floor(cv2.filter2D(pixels, -1, _SMOOTH)[1:-1, 1:-1])
    return _cut_off(_blend(smooth, pixels, level))


def rotate(img: np.ndarray, level: float) -> np.ndarray:
    """By ``30 * level`` degrees either way."""
    angle = np.float32(math.radians(30 * _signed(level)))
    cos, sin = np.cos(angle), np.sin(angle)
    y, x = np.float32(img.shape[0] - 1), np.float32(img.shape[1] - 1)
    return _warp(img, (cos, -sin, (x - (cos * x - sin * y)) / 2), (sin, cos, (y - (sin * x + cos * y)) / 2))


def shear_x(img: np.ndarray, level: float) -> np.ndarray:
    """(H, W, 3) uint8 in RGB -> the same: sheared along x by ``0.3 * level`` pixels a row, either way."""
    return _warp(img, (1, 0.3 * _signed(level), 0), (0, 1, 0))


def shear_y(img: np.ndarray, level: float) -> np.ndarray:
    """(H, W, 3) uint8 in RGB -> the same: sheared along y by ``0.3 * level`` pixels a column, either way."""
    return _warp(img, (1, 0, 0), (0.3 * _signed(level), 1, 0))


def translate_x(img: np.ndarray, level: float) -> np.ndarray:
    """By ``100 * level`` pixels either way."""
    return _warp(img, (1, 0, 100 * _signed(level)), (0, 1, 0))


def translate_y(img: np.ndarray, level: float) -> np.ndarray:
    """(H, W, 3) uint8 in RGB -> the same: moved along y by ``100 * level`` pixels, either way."""
    return _warp(img, (1, 0, 0), (0, 1, 100 * _signed(level)))


def cutout(img: np.ndarray, level: float) -> np.ndarray:
    """Cover a square of half-side ``40 * level`` pixels around any pixel."""
    half = int(40 * level)
    y, x = np.random.randint(img.shape[0]), np.random.randint(img.shape[1])
    img = img.copy()
    img[max(y - half, 0) : y + half, max(x - half, 0) : x + half] = FILL
    return img


OPERATIONS: dict[str, Callable[[np.ndarray, float], np.ndarray]] = dict(
    AutoContrast=auto_contrast,
    Equalize=equalize,
    Invert=invert,
    Rotate=rotate,
    Posterize=posterize,
    Solarize=solarize,
    Color=color,
    Contrast=contrast,
    Brightness=brightness,
    Sharpness=sharpness,
    ShearX=shear_x,
    ShearY=shear_y,
    TranslateX=translate_x,
    TranslateY=translate_y,
    Cutout=cutout,
    SolarizeAdd=solarize_add,
)


@TRANSFORMS.register_module()
class NFRandAugment(BaseTransform):
    """``num_ops`` operations, each drawn uniformly and always applied.

    Random numbers come from numpy's global generator, which mmengine seeds in every data worker.

    Args:
        magnitude: m means m/10 of an operation's full scale and may exceed 10 (so 15 is 1.5 times full scale).
        num_ops: operations drawn for an image.
        prob: bounds between which each operation's probability of being applied is drawn, such as (0.2, 0.8). The
            authors' released code draws it, and then does not use it: None applies every operation.
        operations: names to draw from; all sixteen by default.

    Required and modified key: ``img``, BGR uint8 (H, W, 3), as mmcv loads it.

    Raises:
        ValueError: an argument is out of range, or the image is not of that kind.

    Example:
        >>> invert = NFRandAugment(10, num_ops=1, operations=['Invert'])
        >>> invert(dict(img=np.zeros((1, 1, 3), np.uint8)))['img'].tolist()
        [[[255, 255, 255]]]
    """

    def __init__(
        self,
        magnitude: float,
        num_ops: int = 4,
        prob: Sequence[float] | None = None,
        operations: Sequence[str] = tuple(OPERATIONS),
    ) -> None:
        check_number('magnitude', magnitude, '[0, inf)', ' (10 is full scale)')
        if not is_integer(num_ops) or num_ops < 0:
            raise UserError(f'num_ops={num_ops!r} must be an integer of at least 0')
        if prob is not None and (len(prob) != 2 or not 0 <= prob[0] <= prob[1] <= 1):
            raise UserError(f'prob={prob!r} must be two increasing probabilities')
        unknown = [name for name in operations if name not in OPERATIONS]
        if unknown or not operations:
            hint = f'; unknown: {", ".join(map(str, unknown))}' if unknown else ''
            raise UserError(f'operations={operations!r} must be some of {", ".join(OPERATIONS)}{hint}')
        self.magnitude, self.num_ops, self.operations = magnitude, num_ops, tuple(operations)
        self.prob = None if prob is None else (prob[0], prob[1])

    def augment(self, img: np.ndarray) -> np.ndarray:
        """RGB uint8 (H, W, 3) -> the same kind."""
        for _ in range(self.num_ops):
            name = self.operations[np.random.randint(len(self.operations))]
            if self.prob is None or np.random.rand() < np.random.uniform(*self.prob):
                img = OPERATIONS[name](img, self.magnitude / 10)
        return img

    def transform(self, results: dict) -> dict:
        """``results`` with its ``img``, (H, W, 3) uint8 in BGR, augmented.

        Raises:
            UserError: an image of another type or shape, as behind a normalisation.
        """
        img = results['img']
        if img.dtype != np.uint8 or img.ndim != 3 or img.shape[2] != 3:
            got = f'{img.dtype} {img.shape}'
            raise UserError(f'NFRandAugment takes uint8 images (H, W, 3), got {got}: it comes before normalisation')
        results['img'] = np.ascontiguousarray(self.augment(np.ascontiguousarray(img[..., ::-1]))[..., ::-1])
        return results

    def __repr__(self) -> str:
        names = ('magnitude', 'num_ops', 'prob', 'operations')
        return f'{type(self).__name__}({", ".join(f"{name}={getattr(self, name)}" for name in names)})'


def _look_up(img: np.ndarray, *tables: np.ndarray) -> np.ndarray:
    """Replace values by those of a table of 256 numbers, or of one per channel."""
    whole = [np.clip(table, 0, 255).astype(np.uint8) for table in tables]
    return cv2.LUT(img, whole[0] if len(whole) == 1 else np.stack(whole, 1)[None])


def _blend(degenerate: np.ndarray | np.float32, pixels: np.ndarray, level: float) -> np.ndarray:
    """Mix with a degenerate image, or beyond ``pixels`` where the factor, ``1.8 * level + 0.1``, exceeds 1; float32."""
    mixed = pixels - degenerate
    mixed *= np.float32(1.8 * level + 0.1)
    mixed += degenerate
    return mixed


def _cut_off(pixels: np.ndarray) -> np.ndarray:
    return np.clip(pixels, 0, 255, out=pixels).astype(np.uint8)


def _grey(img: np.ndarray) -> np.ndarray:
    """Whole numbers (H, W) in float32."""
    luma = np.asarray(cv2.transform(img.astype(np.float32) * np.float32(1 / 255), _LUMA))
    return np.floor(luma * np.float32(255.5))


def _signed(level: float) -> float:
    return level if np.random.rand() < 0.5 else -level


def _warp(img: np.ndarray, to_x: Sequence[float], to_y: Sequence[float]) -> np.ndarray:
    """Nearest-neighbour affine map: an output pixel's (x, y, 1) times ``to_x`` and ``to_y`` is where it comes from."""
    y, x = (np.arange(side, dtype=np.float32) for side in img.shape[:2])
    source = np.empty((*img.shape[:2], 2), np.int16)
    for axis, row in enumerate((to_x, to_y)):
        a, b, c = map(np.float32, row)
        place = a * x + (b * y)[:, None] + c
        place += np.copysign(np.float32(0.5), place)  # halves are rounded away from zero
        source[..., axis] = np.clip(place, -1, img.shape[1 - axis], out=place)  # the fraction is cut off
    nearest = cv2.INTER_NEAREST
    return np.asarray(cv2.remap(img, source, _NO_MAP, nearest, borderMode=cv2.BORDER_CONSTANT, borderValue=(FILL,) * 3))
