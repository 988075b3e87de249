"""Pictures of real handwritten digits, for several tasks in their usual layouts, in seconds and without a download.

The digits are scikit-learn's ``load_digits``: 1,797 scans of 8 x 8 pixels from the UCI optical-recognition set
(E. Alpaydin, C. Kaynak, 1998). Each picture holds one or a few of them, enlarged and pasted on noise; no scan that
appears in a training picture appears in a validation picture.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .folders import write_once

MANIFEST = 'digits.json'
Found = list[tuple[int, np.ndarray]]  # (row of the scans, mask) of each digit in a picture
Pictures = Iterator[tuple[int, np.ndarray, Found]]  # number, picture, digits


@dataclass(frozen=True)
class DigitsSpec:
    """What a generated dataset holds; two equal specs give the same bytes.

    Sizes are in pixels. ``layout`` is 'coco', 'class_folders' (as ImageNet: ``train/<class>/``; one digit a picture) or
    'label_maps' (as mmseg: ``images/train``, ``annotations/train``); the pictures do not depend on it. ``version``
    grows when the pictures drawn from the same numbers change.
    """

    train: int = 2000
    val: int = 200
    image_size: int = 128
    min_digit: int = 24
    max_digit: int = 55
    max_digits: int = 4
    seed: int = 0
    layout: str = 'coco'
    version: int = 1

    def __post_init__(self) -> None:
        if min(self.train, self.val, self.max_digits) < 1:
            raise ValueError(f'train, val and max_digits must be at least 1, got {self}')
        if not 8 <= self.min_digit <= self.max_digit <= self.image_size:
            raise ValueError(f'need 8 <= min_digit <= max_digit <= image_size, got {self}')
        if self.layout not in LAYOUTS:
            raise ValueError(f'layout {self.layout!r} is none of {", ".join(LAYOUTS)}')
        if self.layout == 'class_folders' and self.max_digits > 1:
            raise ValueError(f'a picture in a class folder holds one digit: max_digits must be 1, got {self}')


def encode_rle(mask: np.ndarray) -> dict[str, list]:
    """A boolean (H, W) mask as COCO's uncompressed run lengths, column by column, starting with zeros.

    >>> encode_rle(np.array([[0, 1], [1, 1]], bool))
    {'size': [2, 2], 'counts': [1, 3]}
    """
    flat = np.concatenate([[False], np.asarray(mask, bool).ravel(order='F')])
    changes = np.flatnonzero(flat[1:] != flat[:-1])
    counts = np.diff(np.concatenate([[0], changes, [flat.size - 1]]))
    return dict(size=list(mask.shape), counts=counts.tolist())


def decode_rle(rle: dict[str, list]) -> np.ndarray:
    """The boolean (H, W) mask of :func:`encode_rle`'s answer.

    >>> decode_rle({'size': [2, 2], 'counts': [1, 3]}).tolist()
    [[False, True], [True, True]]
    """
    values = np.arange(len(rle['counts'])) % 2 == 1
    return np.repeat(values, rle['counts']).reshape(rle['size'], order='F')


def compose(rng: np.random.Generator, scans: np.ndarray, spec: DigitsSpec) -> tuple[np.ndarray, Found]:
    """Draw one picture.

    Args:
        rng: every choice comes from it.
        scans: (N, 8, 8) scans to choose from, values 0-16.
        spec: the sizes.

    Returns: the uint8 (size, size, 3) RGB picture, and a list of (index into scans, boolean (size, size) mask).
    """
    from PIL import Image

    size = spec.image_size
    picture = rng.uniform(0, 100, (size, size, 3)).astype(np.float32)
    taken = np.zeros((size, size), bool)
    found = []
    for _ in range(rng.integers(1, spec.max_digits + 1)):
        index = int(rng.integers(len(scans)))
        side = int(rng.integers(spec.min_digit, spec.max_digit + 1))
        ink = Image.fromarray((scans[index] * (255 / 16)).astype(np.uint8)).resize((side, side), Image.BICUBIC)
        ink = np.asarray(ink, np.float32) / 255
        colour = rng.uniform(170, 255, 3).astype(np.float32)
        # Digits may touch but not cover each other: a covered digit has no right answer to learn.
        for x, y in rng.integers(0, size - side + 1, (20, 2)):
            window = np.s_[y : y + side, x : x + side]
            if not (taken[window] & (ink > 0.4)).any():
                break
        else:
            continue
        mask = np.zeros((size, size), bool)
        mask[window] = ink > 0.4
        taken |= mask
        alpha = np.clip(ink, 0, 1)[..., None]
        picture[window] = picture[window] * (1 - alpha) + colour * alpha
        found.append((index, mask))
    return picture.round().clip(0, 255).astype(np.uint8), found


def load_scans(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """All scans, split by ``rng``: (1797, 8, 8) values 0-16, (1797,) labels, the rows to train on and to validate.

    Raises:
        ImportError: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError("the demos draw on scikit-learn's digits: pip install scikit-learn") from error
    digits = load_digits()
    # A fifth of the scans is kept for validation, whatever the number of pictures.
    order = rng.permutation(len(digits.images))
    held_out = len(order) // 5
    return digits.images, digits.target, order[held_out:], order[:held_out]


def _save(array: np.ndarray, path: Path) -> None:
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def _write_coco(root: Path, split: str, pictures: Pictures, labels: np.ndarray) -> None:
    """Write ``train/``, ``val/`` and ``annotations/{train,val}.json``.

    An annotation has the extra key ``scan``, the row of ``load_digits`` that it was drawn from.
    """
    images: list[dict] = []
    annotations: list[dict] = []
    for image_id, picture, found in pictures:
        name = f'{image_id:06d}.png'
        _save(picture, root / split / name)
        images.append(dict(id=image_id, file_name=name, width=picture.shape[1], height=picture.shape[0]))
        for scan, mask in found:
            rows, cols = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            box = [cols[0], rows[0], cols[-1] + 1 - cols[0], rows[-1] + 1 - rows[0]]
            one: dict = dict(id=len(annotations) + 1, image_id=image_id, category_id=int(labels[scan]) + 1, iscrowd=0)
            one.update(bbox=[int(v) for v in box], area=int(mask.sum()), segmentation=encode_rle(mask), scan=scan)
            annotations.append(one)
    categories = [dict(id=i + 1, name=str(i)) for i in range(10)]
    (root / 'annotations').mkdir(exist_ok=True)
    content = dict(images=images, annotations=annotations, categories=categories)
    (root / 'annotations' / f'{split}.json').write_text(json.dumps(content))


def _write_class_folders(root: Path, split: str, pictures: Pictures, labels: np.ndarray) -> None:
    """``{train,val}/<class>/``, as ImageNet's."""
    for digit in range(10):
        (root / split / str(digit)).mkdir(parents=True)
    for number, picture, found in pictures:
        _save(picture, root / split / str(labels[found[0][0]]) / f'{number:06d}.png')


def _write_label_maps(root: Path, split: str, pictures: Pictures, labels: np.ndarray) -> None:
    """``images/{train,val}/`` and ``annotations/{train,val}/``, as mmseg's: 0 is background, 1-10 are digits 0-9."""
    for number, picture, found in pictures:
        label_map = np.zeros(picture.shape[:2], np.uint8)
        for scan, mask in found:
            label_map[mask] = labels[scan] + 1
        for kind, array in (('images', picture), ('annotations', label_map)):
            _save(array, root / kind / split / f'{number:06d}.png')


LAYOUTS = dict(coco=_write_coco, class_folders=_write_class_folders, label_maps=_write_label_maps)


def generate(root: str | Path, spec: DigitsSpec = DigitsSpec()) -> Path:
    """Write PNGs in the spec's layout, and ``digits.json`` (the spec), as :func:`~.folders.write_once` does.

    Raises:
        FileExistsError: ``root`` holds something that this function did not write.
        ImportError: scikit-learn is not installed.
    """

    def draw(count: int, scans: np.ndarray, rows: np.ndarray) -> Pictures:
        for number in range(1, count + 1):
            picture, found = compose(rng, scans[rows], spec)
            yield number, picture, [(int(rows[index]), mask) for index, mask in found]

    def fill(folder: Path) -> None:
        scans, labels, train, val = load_scans(rng)
        LAYOUTS[spec.layout](folder, 'train', draw(spec.train, scans, train), labels)
        LAYOUTS[spec.layout](folder, 'val', draw(spec.val, scans, val), labels)

    rng = np.random.default_rng(spec.seed)

    return write_once(root, spec, MANIFEST, fill)
