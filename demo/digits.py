"""Pictures of real handwritten digits, for several tasks in their usual layouts, in seconds and without a download.

The digits are scikit-learn's ``load_digits``: 1,797 scans of 8 x 8 pixels from the UCI optical-recognition set
(E. Alpaydin, C. Kaynak, 1998). Each picture holds one or a few of them, enlarged and pasted on noise; no scan that
appears in a training picture appears in a validation picture.
"""

import json
from dataclasses import dataclass

import numpy as np

from .folders import write_once

__all__ = ['DigitsSpec', 'compose', 'decode_rle', 'encode_rle', 'generate', 'load_scans']

MANIFEST = 'digits.json'


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

    def __post_init__(self):
        if min(self.train, self.val, self.max_digits) < 1:
            raise ValueError(f'train, val and max_digits must be at least 1, got {self}')
        if not 8 <= self.min_digit <= self.max_digit <= self.image_size:
            raise ValueError(f'need 8 <= min_digit <= max_digit <= image_size, got {self}')
        if self.layout not in LAYOUTS:
            raise ValueError(f'layout {self.layout!r} is none of {", ".join(LAYOUTS)}')
        if self.layout == 'class_folders' and self.max_digits > 1:
            raise ValueError(f'a picture in a class folder holds one digit: max_digits must be 1, got {self}')


def encode_rle(mask):
    """A boolean (H, W) mask as COCO's uncompressed run lengths, column by column, starting with zeros.

    >>> encode_rle(np.array([[0, 1], [1, 1]], bool))
    {'size': [2, 2], 'counts': [1, 3]}
    """
    flat = np.concatenate([[False], np.asarray(mask, bool).ravel(order='F')])
    changes = np.flatnonzero(flat[1:] != flat[:-1])
    counts = np.diff(np.concatenate([[0], changes, [flat.size - 1]]))
    return dict(size=list(mask.shape), counts=counts.tolist())


def decode_rle(rle):
    """The boolean (H, W) mask of :func:`encode_rle`'s answer.

    >>> decode_rle({'size': [2, 2], 'counts': [1, 3]}).tolist()
    [[False, True], [True, True]]
    """
    values = np.arange(len(rle['counts'])) % 2 == 1
    return np.repeat(values, rle['counts']).reshape(rle['size'], order='F')


def compose(rng, scans, spec):
    """Draw one picture.

    Args:
        rng (numpy.random.Generator): Every choice comes from it.
        scans (numpy.ndarray): (N, 8, 8) scans to choose from, values 0-16.
        spec (DigitsSpec): The sizes.

    Returns:
        tuple: the uint8 (size, size, 3) RGB picture, and a list of (index into scans, boolean (size, size) mask).
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


def load_scans(rng):
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


def _pictures(count, scans, indices, rng, spec):
    """Draw ``count`` pictures of the scans at ``indices``: number (from 1), picture, [(row of scans, mask)]."""
    for number in range(1, count + 1):
        picture, found = compose(rng, scans[indices], spec)
        yield number, picture, [(int(indices[index]), mask) for index, mask in found]


def _save(array, path):
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def _write_coco(root, split, pictures, labels):
    """``train/``, ``val/`` and ``annotations/{train,val}.json``, with the extra key ``scan`` in an annotation: the row
    of ``load_digits`` it was drawn from."""
    images, annotations = [], []
    for image_id, picture, found in pictures:
        name = f'{image_id:06d}.png'
        _save(picture, root / split / name)
        images.append(dict(id=image_id, file_name=name, width=picture.shape[1], height=picture.shape[0]))
        for scan, mask in found:
            rows, cols = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            box = [cols[0], rows[0], cols[-1] + 1 - cols[0], rows[-1] + 1 - rows[0]]
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=image_id,
                    category_id=int(labels[scan]) + 1,
                    iscrowd=0,
                    bbox=[int(v) for v in box],
                    area=int(mask.sum()),
                    segmentation=encode_rle(mask),
                    scan=scan,
                )
            )
    categories = [dict(id=i + 1, name=str(i)) for i in range(10)]
    (root / 'annotations').mkdir(exist_ok=True)
    with open(root / 'annotations' / f'{split}.json', 'w') as file:
        json.dump(dict(images=images, annotations=annotations, categories=categories), file)


def _write_class_folders(root, split, pictures, labels):
    """``{train,val}/<class>/``, as ImageNet's."""
    for digit in range(10):
        (root / split / str(digit)).mkdir(parents=True)
    for number, picture, found in pictures:
        _save(picture, root / split / str(labels[found[0][0]]) / f'{number:06d}.png')


def _write_label_maps(root, split, pictures, labels):
    """``images/{train,val}/`` and ``annotations/{train,val}/``, as mmseg's: 0 is background, 1-10 are digits 0-9."""
    for number, picture, found in pictures:
        label_map = np.zeros(picture.shape[:2], np.uint8)
        for scan, mask in found:
            label_map[mask] = labels[scan] + 1
        for kind, array in (('images', picture), ('annotations', label_map)):
            _save(array, root / kind / split / f'{number:06d}.png')


LAYOUTS = dict(coco=_write_coco, class_folders=_write_class_folders, label_maps=_write_label_maps)


def generate(root, spec=DigitsSpec()):
    """Write the dataset, unless it already stands there whole.

    Writes PNGs in the spec's layout, and ``digits.json`` (the spec).

    Args:
        root (str | os.PathLike): The dataset's folder. One written by this function for another spec is replaced.
        spec (DigitsSpec): What to draw.

    Returns:
        pathlib.Path: ``root``.

    Raises:
        FileExistsError: ``root`` holds something this function did not write.
        ImportError: scikit-learn is not installed.
    """

    def fill(folder):
        rng = np.random.default_rng(spec.seed)
        scans, labels, *rows = load_scans(rng)
        for split, count, indices in zip(('train', 'val'), (spec.train, spec.val), rows):
            LAYOUTS[spec.layout](folder, split, _pictures(count, scans, indices, rng, spec), labels)

    return write_once(root, spec, MANIFEST, fill)
