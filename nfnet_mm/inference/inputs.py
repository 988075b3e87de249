"""Files to predict: found before a model is built."""

import glob
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nfnet_mm.errors import UserError

SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp')  # of the files that are taken from a folder
VIDEOS = ('.mp4', '.avi', '.mov', '.mkv', '.webm')


def find_images(names: Sequence[str]) -> list[Path]:
    """The files of names: each a file, a folder (all below it) or a pattern such as ``'photos/*.jpg'``.

    Raises:
        UserError: a name that stands for no file.
    """
    found: dict[Path, None] = {}
    for name in names:
        path = Path(name)
        if path.is_dir():
            some = sorted(one for one in path.rglob('*') if one.suffix.lower() in SUFFIXES + VIDEOS)
            what = f'folder {name!r} holds no image or video ({", ".join(SUFFIXES + VIDEOS)})'
        elif path.is_file():
            some, what = [path], ''
        else:
            some = [one for one in map(Path, sorted(glob.glob(name, recursive=True))) if one.is_file()]
            what = f'no file matches {name!r}'
        if not some:
            raise UserError(what)
        found.update(dict.fromkeys(some))
    return list(found)


def is_video(path: Path) -> bool:
    """Whether a file is taken for a video, by its name."""
    return path.suffix.lower() in VIDEOS


class Video:
    """Every n-th frame of a video.

    Args:
        path: its file.
        every: n.

    Attributes:
        rate: of the frames that are kept, per second.
        count: of them, as the file tells.
    """

    def __init__(self, path: Path, every: int = 1):
        import cv2

        self.every = every
        self._file: Any = cv2.VideoCapture(str(path))
        self.rate = (self._file.get(cv2.CAP_PROP_FPS) or 25.0) / every
        self.count = max(0, -(-int(self._file.get(cv2.CAP_PROP_FRAME_COUNT)) // every))

    def __iter__(self) -> Iterator[tuple[int, np.ndarray]]:
        """(number of the frame in the video, uint8 (H, W, 3) in OpenCV's order of channels)."""
        number = 0
        while self._file.grab():
            if number % self.every == 0:
                whole, frame = self._file.retrieve()
                if whole:
                    yield number, frame
            number += 1
        self._file.release()
