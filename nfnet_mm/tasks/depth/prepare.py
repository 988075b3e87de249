"""From the public labelled NYU Depth v2 file to the folders that mmseg's ``NYUDataset`` reads."""

import os
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from mmengine.utils import ProgressBar

from nfnet_mm.errors import UserError, check_exists

PathLike = str | os.PathLike
# Training and test images of the split that every paper uses (Laina et al. 2016, section 4.1).
STANDARD_SPLIT = (795, 654)
_NAME = 'nyu_{:04d}'
# Small enough a loss for images that are then halved; the suffix is what NYUDataset looks for.
_JPEG = (cv2.IMWRITE_JPEG_QUALITY, 100, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444)


def is_labelled(path: PathLike) -> bool:
    """Whether a file has the name that :func:`prepare_nyu` gives to those of the labelled images.

    Example:
        >>> is_labelled('images/train/nyu_0003.jpg'), is_labelled('images/train/bathroom_0030_00012.jpg')
        (True, False)
    """
    return re.fullmatch(r'nyu_\d{4}', Path(path).stem) is not None


def depth_to_millimetres(depth: np.ndarray) -> np.ndarray:
    """Metres (float) to whole millimetres (uint16), 0 where there is no depth.

    Raises:
        ValueError: a depth that is negative, not finite or over 65.535 m.

    Example:
        >>> depth_to_millimetres(np.array([[0., 0.7134, 9.9996]])).tolist()
        [[0, 713, 10000]]
    """
    bad = ~(np.isfinite(depth) & (depth >= 0) & (depth <= 65.535))
    if bad.any():
        place = tuple(int(i) for i in np.argwhere(bad)[0])
        what = f'depth {depth[bad][0]} m at (row, column) {place}'
        raise UserError(f'{what} is outside 0 to 65.535 m, what 16 bits of millimetres hold')
    return np.rint(depth * 1000).astype(np.uint16)


def _damaged(path: PathLike, error: OSError) -> UserError:
    """What to say of an HDF5 file that HDF5 could not read."""
    what = f'{str(path)!r} ({os.path.getsize(path):,} bytes)'
    if 'truncated' in str(error):
        return UserError(f'{what} is truncated, download it again: {error}')
    if 'signature' in str(error):
        ask = 'is it the labelled data set itself, and was it downloaded to the end?'
        return UserError(f'{what} is no HDF5 (MATLAB 7.3) file: {ask}')
    return UserError(f'{what} cannot be read, download it again: {error}')


def _open_hdf5(path: PathLike) -> Any:
    """The open ``h5py.File``, a context manager; :class:`UserError` if there is none to open."""
    try:
        import h5py
    except ImportError as error:
        raise UserError('reading MATLAB 7.3 files needs h5py: pip install h5py') from error
    check_exists(path, 'the file')
    try:
        return h5py.File(path, 'r')
    except OSError as error:
        raise _damaged(path, error) from error


def read_splits(path: PathLike) -> dict[str, np.ndarray]:
    """The 1-based image numbers of ``splits.mat``: {'train': (n,), 'test': (m,)}, of MATLAB's format 5 or 7.3.

    Raises:
        UserError: the file is missing, unreadable or lacks ``trainNdxs`` or ``testNdxs``.
    """
    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise UserError('reading MATLAB files needs scipy: pip install scipy') from error
    names = dict(train='trainNdxs', test='testNdxs')
    check_exists(path, 'the file')
    try:
        content = loadmat(path, variable_names=list(names.values()))
    except NotImplementedError:  # scipy's word for format 7.3
        with _open_hdf5(path) as file:
            content = {name: file[name][()] for name in names.values() if name in file}
    except Exception as error:  # scipy raises a different one for each way to be damaged
        raise UserError(f'{str(path)!r} is no readable MATLAB file: {error}') from error
    if missing := [name for name in names.values() if name not in content]:
        raise UserError(f'{str(path)!r} lacks {", ".join(missing)}: it is not the split of the labelled data set')
    return {split: np.asarray(content[name]).ravel().astype(int) for split, name in names.items()}


def _check_split(splits: dict[str, np.ndarray], images: int, expected: Sequence[int], mat: PathLike) -> None:
    counts = tuple(len(splits[split]) for split in ('train', 'test'))
    if counts != tuple(expected):
        has = f'the split has {counts[0]} training and {counts[1]} test images'
        raise UserError(f'{has}, the standard one has {expected[0]} and {expected[1]}')
    if images != sum(counts):
        raise UserError(f'{str(mat)!r} holds {images} images, but the split is of {sum(counts)}')
    numbers = np.concatenate((splits['train'], splits['test']))
    if not np.array_equal(np.sort(numbers), np.arange(1, images + 1)):
        values, times = np.unique(numbers, return_counts=True)
        wrong = [int(i) for i in (*values[times > 1], *values[(values < 1) | (values > images)])]
        raise UserError(f'the split does not name each of the images 1 to {images} once: see {wrong[:5]}')


def _write(path: Path, suffix: str, array: np.ndarray, options: tuple[int, ...] = ()) -> None:
    """Write an image so that ``path`` exists either whole or not at all."""
    done, data = cv2.imencode(suffix, array, options)
    if not done:
        raise OSError(f'OpenCV could not encode {path}')
    part = path.with_name(path.name + '.part')
    part.write_bytes(data.tobytes())
    os.replace(part, path)


def _jobs(splits: dict[str, np.ndarray], out: Path) -> Iterator[tuple[int, Path, Path]]:
    """(0-based place in the file, image path, depth path), in the file's order, which reads fastest."""
    split_of = {int(number): split for split, numbers in splits.items() for number in numbers}
    for number, split in sorted(split_of.items()):
        name = _NAME.format(number)
        yield (number - 1, out / 'images' / split / f'{name}.jpg', out / 'annotations' / split / f'{name}.png')


def prepare_nyu(mat: PathLike, splits: PathLike, out: PathLike, expected: Sequence[int] = STANDARD_SPLIT) -> int:
    """Write ``out``/{images,annotations}/{train,test}/nyu_NNNN.{jpg,png}, the depths as 16-bit millimetres.

    Can be killed at any moment and run again: what is already there stays, and no file is ever half written.

    Args:
        mat: ``nyu_depth_v2_labeled.mat``, with ``images`` (N, 3, W, H) uint8, RGB, and ``depths`` (N, W, H) in metres
            (MATLAB's axes, reversed by HDF5).
        splits: ``splits.mat``, see :func:`read_splits`.
        out: folder to write to.
        expected: numbers of training and test images.

    Returns: how many pairs were written now.

    Raises:
        UserError: a file is missing, truncated, not what it should be, or does not match the other.
    """
    out, numbers = Path(out), read_splits(splits)
    with _open_hdf5(mat) as file:
        if missing := [key for key in ('images', 'depths') if key not in file]:
            raise UserError(f'{str(mat)!r} lacks {", ".join(missing)}: it is not the labelled data set')
        images, depths = file['images'], file['depths']
        good = images.ndim == 4 and images.shape[1] == 3 and images.dtype == np.uint8
        if not good or depths.shape != (images.shape[0], *images.shape[2:]):
            found = f'images {images.shape} {images.dtype} and depths {depths.shape}'
            raise UserError(f'{str(mat)!r}: {found} should be (N, 3, W, H) uint8 and (N, W, H)')
        _check_split(numbers, len(images), expected, mat)
        for kind in ('images', 'annotations'):
            for split in numbers:
                (out / kind / split).mkdir(parents=True, exist_ok=True)
        jobs = [job for job in _jobs(numbers, out) if not (job[1].exists() and job[2].exists())]
        if len(jobs) < len(images):
            print(f'{len(images) - len(jobs)} of {len(images)} are already in {out}')
        bar = ProgressBar(len(jobs) or 1, start=bool(jobs), file=sys.stdout)
        for index, image_path, depth_path in jobs:
            try:
                image, depth = images[index].transpose(2, 1, 0), depth_to_millimetres(depths[index].T)
            except OSError as error:
                raise _damaged(mat, error) from error
            except ValueError as error:
                raise UserError(f'{str(mat)!r}, image {index + 1}: {error}') from error
            _write(depth_path, '.png', depth)
            _write(image_path, '.jpg', image[..., ::-1], _JPEG)
            bar.update()
    if jobs:
        print()
    return len(jobs)
