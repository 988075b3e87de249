"""RandAugment as the NFNet recipe has it (NFNets, Appendix A.3; Cubuk et al. 2020): its own operations and scales.

The operations are pure functions of an RGB uint8 image (H, W, 3) and a level, 1 being full scale, to a new image. The
colour operations give Pillow's numbers.
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
_SMOOTH = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]], np.float32) / 13


def auto_contrast(img: np.ndarray, level: float) -> np.ndarray:
    """Stretch every channel to 0-255."""
    tables = []
    for channel in np.moveaxis(img, 2, 0):
        low, high = int(channel.min()), int(channel.max())
        scale = 255 / (high - low) if high > low else 1.0
        tables.append(_IDENTITY * scale - low * scale if high > low else _IDENTITY)
    return _look_up(img, *tables)


def equalize(img: np.ndarray, level: float) -> np.ndarray:
    """Flatten every channel's histogram."""
    tables = []
    for channel in np.moveaxis(img, 2, 0):
        counts = np.bincount(channel.ravel(), minlength=256)
        step = (channel.size - counts[channel.max()]) // 255
        below = np.cumsum(counts) - counts
        tables.append((step // 2 + below) // step if step else _IDENTITY)
    return _look_up(img, *tables)


def invert(img: np.ndarray, level: float) -> np.ndarray:
    return 255 - img


def posterize(img: np.ndarray, level: float) -> np.ndarray:
    """Keep the highest ``4 * level`` bits, all of them from level 2 on."""
    dropped = max(8 - int(4 * level), 0)
    return img >> dropped << dropped


def solarize(img: np.ndarray, level: float) -> np.ndarray:
    """Invert what is at or above ``256 * level``: nothing from level 1 on."""
    return _look_up(img, np.where(int(256 * level) > _IDENTITY, _IDENTITY, 255 - _IDENTITY))


def solarize_add(img: np.ndarray, level: float) -> np.ndarray:
    """Add ``110 * level`` to what is below 128."""
    return _look_up(img, np.where(_IDENTITY < 128, _IDENTITY + int(110 * level), _IDENTITY))


def color(img: np.ndarray, level: float) -> np.ndarray:
    return _enhance(cv2.merge([_grey(img)] * 3), img, level)  # broadcasting would take ten times as long


def contrast(img: np.ndarray, level: float) -> np.ndarray:
    return _enhance(int(_grey(img).mean() + 0.5), img, level)


def brightness(img: np.ndarray, level: float) -> np.ndarray:
    return _enhance(0, img, level)


def sharpness(img: np.ndarray, level: float) -> np.ndarray:
    smooth = img.copy()  # its border stays
    smooth[1:-1, 1:-1] = cv2.filter2D(img, -1, _SMOOTH)[1:-1, 1:-1]
    return _enhance(smooth, img, level)


def rotate(img: np.ndarray, level: float) -> np.ndarray:
    """By ``30 * level`` degrees either way."""
    angle = math.radians(30 * _signed(level))
    cos, sin = math.cos(angle), math.sin(angle)
    y, x = (img.shape[0] - 1) / 2, (img.shape[1] - 1) / 2
    return _warp(img, [[cos, -sin, x - cos * x + sin * y], [sin, cos, y - sin * x - cos * y]])


def shear_x(img: np.ndarray, level: float) -> np.ndarray:
    return _warp(img, [[1, 0.3 * _signed(level), 0], [0, 1, 0]])


def shear_y(img: np.ndarray, level: float) -> np.ndarray:
    return _warp(img, [[1, 0, 0], [0.3 * _signed(level), 1, 0]])


def translate_x(img: np.ndarray, level: float) -> np.ndarray:
    """By ``100 * level`` pixels either way."""
    return _warp(img, [[1, 0, 100 * _signed(level)], [0, 1, 0]])


def translate_y(img: np.ndarray, level: float) -> np.ndarray:
    return _warp(img, [[1, 0, 0], [0, 1, 100 * _signed(level)]])


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
    """``num_ops`` operations, each drawn uniformly and applied with a probability that is drawn too.

    Random numbers come from numpy's global generator, which mmengine seeds in every data worker.

    Args:
        magnitude: m means m/10 of an operation's full scale and may exceed 10 (so 15 is 1.5 times full scale).
        num_ops: operations drawn for an image.
        prob: bounds between which each operation's probability is drawn.
        operations: names to draw from; all sixteen by default.

    Required and modified key: ``img``, BGR uint8 (H, W, 3), as mmcv loads it.

    Raises:
        ValueError: an argument is out of range, or the image is not of that kind.

    Example:
        >>> invert = NFRandAugment(10, num_ops=1, prob=(1, 1), operations=['Invert'])
        >>> invert(dict(img=np.zeros((1, 1, 3), np.uint8)))['img'].tolist()
        [[[255, 255, 255]]]
    """

    def __init__(
        self,
        magnitude: float,
        num_ops: int = 4,
        prob: Sequence[float] = (0.2, 0.8),
        operations: Sequence[str] = tuple(OPERATIONS),
    ) -> None:
        check_number('magnitude', magnitude, '[0, inf)', ' (10 is full scale)')
        if not is_integer(num_ops) or num_ops < 0:
            raise UserError(f'num_ops={num_ops!r} must be an integer of at least 0')
        if len(prob) != 2 or not 0 <= prob[0] <= prob[1] <= 1:
            raise UserError(f'prob={prob!r} must be two increasing probabilities')
        unknown = [name for name in operations if name not in OPERATIONS]
        if unknown or not operations:
            hint = f'; unknown: {", ".join(map(str, unknown))}' if unknown else ''
            raise UserError(f'operations={operations!r} must be some of {", ".join(OPERATIONS)}{hint}')
        self.magnitude, self.num_ops, self.operations = magnitude, num_ops, tuple(operations)
        self.prob = (prob[0], prob[1])

    def augment(self, img: np.ndarray) -> np.ndarray:
        """RGB uint8 (H, W, 3) -> the same kind."""
        for _ in range(self.num_ops):
            name = self.operations[np.random.randint(len(self.operations))]
            if np.random.rand() < np.random.uniform(*self.prob):
                img = OPERATIONS[name](img, self.magnitude / 10)
        return img

    def transform(self, results: dict) -> dict:
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


def _enhance(degenerate: np.ndarray | int, img: np.ndarray, level: float) -> np.ndarray:
    """Mix with a degenerate image, or beyond ``img`` where the factor, ``1.8 * level + 0.1``, exceeds 1."""
    start = np.asarray(degenerate, np.float32)
    mixed = start + np.float32(1.8 * level + 0.1) * (img - start)
    return np.clip(mixed, 0, 255).astype(np.uint8)


def _grey(img: np.ndarray) -> np.ndarray:
    """Luma of ITU-R 601 in 16-bit fixed point, (H, W)."""
    return ((img @ np.array([19595, 38470, 7471]) + 0x8000) >> 16).astype(np.uint8)


def _signed(level: float) -> float:
    return level if np.random.rand() < 0.5 else -level


def _warp(img: np.ndarray, to_source: list[list[float]]) -> np.ndarray:
    """Nearest-neighbour affine map; ``to_source`` takes an output pixel's (x, y, 1) to where it comes from."""
    matrix, grey = np.array(to_source, np.float64), (FILL,) * 3
    how = cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(img, matrix, img.shape[1::-1], flags=how, borderMode=cv2.BORDER_CONSTANT, borderValue=grey)
