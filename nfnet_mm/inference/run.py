"""A whole run: pictures and videos in, and a folder of pictures, results for programs and a page out."""

import json
import os
import shlex
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from mmengine import Config
from mmengine.utils import ProgressBar

from nfnet_mm.errors import UserError, check_positive, make_folder, write_atomically

from .drawing import png
from .inputs import Video, find_images, is_video
from .page import write_page
from .predictor import Prediction, Predictor
from .tables import Tables


class _Item(NamedTuple):
    """A picture to predict: of a file, or a frame of a video."""

    path: Path
    pixels: np.ndarray
    frame: int | None = None


def predict_in_batches(
    predictor: Predictor, items: Iterable[_Item], batch_size: int, small: list[str]
) -> Iterator[tuple[_Item, Prediction]]:
    """Predict pictures in their order, up to so many at once.

    Only pictures of one size go together: padded to a common one, they would not give what they give alone. Those that
    the config's pipeline leaves under the network's stride are added to ``small``, with their size.
    """
    waiting: list[tuple[_Item, dict[str, Any]]] = []
    sizes = None

    def predicted() -> Iterator[tuple[_Item, Prediction]]:
        if waiting:
            samples = predictor.forward([data for _, data in waiting])
            for (item, _), sample in zip(waiting, samples):
                yield item, predictor.read(item.pixels, sample)
        waiting.clear()

    for item in items:
        data = predictor.prepare(item.path if item.frame is None else item.pixels)
        size = item.pixels.shape, data['inputs'].shape
        if min(size[1][-2:]) < predictor.stride:
            small.append(f'{str(item.path)!r} in {size[1][-2]}x{size[1][-1]}')
        if size != sizes or len(waiting) == batch_size:
            yield from predicted()
        sizes = size
        waiting.append((item, data))
    yield from predicted()


class _Writer:
    """Writes what was found into a folder, each file whole; a video when the next file begins."""

    def __init__(self, folder: Path, paths: Sequence[Path]):
        self.folder, self.tables = folder, Tables()
        self.videos: dict[str, Path] = {}
        self.shown: list[tuple[Path, str]] = []  # (picture, what was found in it)
        self._used = {path.resolve() for path in paths}  # a picture is not written over, in a folder that holds both
        self._video: Any = None
        self._now: Any = None  # the video that is being written, and its name here
        self._frames: list[dict[str, Any]] = []

    def add(self, item: _Item, found: Prediction, rate: float) -> None:
        """Write what was found in a picture, or keep it for its video's file."""
        shape = item.pixels.shape[:2]
        if item.frame is None:
            self.close()
            name = self._free(item.path.stem, ['.json', '.png', *(f'_{one}.png' for one in found.maps)])
            label = str(item.path)
        else:
            if self._now is None or self._now[0] != item.path:
                self.close()
                self._now = item.path, self._free(item.path.stem, ['.json', '.png', '.mp4'])
                self._start(found.drawn.shape[:2], rate)
            name, label = f'{self._now[1]}_frame{item.frame:06d}', f'{item.path}#{item.frame}'
        files = {one: self._write(f'{name}_{one}.png', content) for one, content in found.maps.items()}
        line = self.tables.add(label, shape, found.told)
        if item.frame is None:
            files = dict(picture=self._write(f'{name}.png', png(found.drawn)), **files)
            self._json(name, dict(image=label, files=files, **found.told))
            self.shown.append((self.folder / f'{name}.png', f'{item.path.name}: {line}'))
            return
        if not self._frames:
            poster = self._write(f'{self._now[1]}.png', png(found.drawn))
            self.shown.append((self.folder / poster, f'{item.path.name}, first frame: {line}'))
        self._frames.append(dict(frame=item.frame, files=files, **found.told))
        self._video.write(np.ascontiguousarray(found.drawn))

    def close(self) -> None:
        """Complete the video that is being written, with the frames that it has."""
        if self._now is None:
            return
        path, name = self._now
        self._video.release()
        self.videos[f'{name}.mp4'] = self.folder / f'{name}.mp4'
        os.replace(self._hidden, self.videos[f'{name}.mp4'])
        self._json(
            name, dict(video=str(path), files=dict(video=f'{name}.mp4', picture=f'{name}.png'), frames=self._frames)
        )
        self._now, self._frames = None, []

    def _start(self, shape: tuple[int, ...], rate: float) -> None:
        import cv2

        self._hidden = self.folder / f'.{os.getpid()}.mp4'
        code: int = cv2.VideoWriter_fourcc(*'mp4v')  # type: ignore[attr-defined]
        self._video = cv2.VideoWriter(str(self._hidden), code, rate, (shape[1], shape[0]))
        if not self._video.isOpened():
            raise UserError(f'a video of {shape[1]}x{shape[0]} pixels cannot be written in {str(self.folder)!r}')

    def _free(self, stem: str, ends: Sequence[str]) -> str:
        """A name of which none of the files is taken: there are pictures of like names in other folders."""
        name, count = stem, 1
        while not self._used.isdisjoint(targets := {(self.folder / f'{name}{end}').resolve() for end in ends}):
            count += 1
            name = f'{stem}_{count}'
        self._used |= targets
        return name

    def _json(self, name: str, told: dict[str, Any]) -> None:
        self._write(f'{name}.json', json.dumps(told, indent=1, default=_plain).encode())

    def _write(self, name: str, content: bytes) -> str:
        write_atomically(self.folder / name, lambda file: file.write(content))
        return name


def _plain(value: Any) -> Any:
    return value.decode() if isinstance(value, bytes) else value.tolist()


def _items(paths: Sequence[Path], every: int, skip: Callable[[Path], None]) -> Iterator[tuple[_Item, float]]:
    """The pictures of files and the frames of videos, and their rate; what cannot be read is told to ``skip``."""
    import cv2

    for path in paths:
        if is_video(path):
            video, some = Video(path, every), False
            for number, frame in video:
                some = True
                yield _Item(path, frame, number), video.rate
            if not some:
                skip(path)
        else:
            pixels: Any = cv2.imread(str(path))
            if pixels is None:
                skip(path)
            else:
                yield _Item(path, pixels), 0.0


def run(
    cfg: Config,
    checkpoint: str,
    images: Sequence[str],
    out: str,
    device: str | None = None,
    score_threshold: float = 0.3,
    batch_size: int = 1,
    every: int = 1,
) -> int:
    """Find the pictures, predict them, write all that is known of them, say what was written.

    Args:
        cfg, checkpoint, device, score_threshold: see :class:`Predictor`.
        images: files, folders and patterns, of pictures and videos.
        out: the folder to write to.
        batch_size: how many pictures of one size are predicted at once.
        every: of videos, every so many frames are predicted.

    Returns:
        how many pictures (and frames) were predicted.

    Raises:
        UserError: nothing to do, nothing that can be read, or nowhere to write.
    """
    check_positive('batch_size', batch_size)
    check_positive('every', every)
    paths, folder, start = find_images(images), make_folder(out, 'output folder'), time.time()
    predictor = Predictor(cfg, checkpoint, device, score_threshold)
    writer, skipped, rates, done = _Writer(folder, paths), [], {}, 0
    small: list[str] = []
    total = sum(Video(path, every).count if is_video(path) else 1 for path in paths)
    bar = ProgressBar(total, file=sys.stderr) if sys.stderr.isatty() and total else None

    def skip(path: Path) -> None:
        skipped.append(str(path))
        what = 'video' if is_video(path) else 'image'
        print(f'skipped: {str(path)!r} is no {what} that can be read', file=sys.stderr, flush=True)

    def items() -> Iterator[_Item]:
        for item, rate in _items(paths, every, skip):
            rates[item.path] = rate
            yield item

    complete = False
    try:
        for item, found in predict_in_batches(predictor, items(), batch_size, small):
            writer.add(item, found, rates[item.path])
            done += 1
            if bar:
                bar.update()
        complete = True
    finally:  # what is done is of use after an interrupt or an error, too
        if bar:
            print(file=sys.stderr)
        writer.close()
        notes = [] if complete else [f'It ended early: these are {done} of {total}.']
        notes += [f'Skipped, as it cannot be read: {path}' for path in skipped]
        if small:
            what = f'reach the network in fewer pixels than its stride of {predictor.stride}, as {small[0]}'
            notes.append(f'{len(small)} of the pictures {what}: it finds nothing of worth there unless trained on such')
            print(notes[-1], file=sys.stderr, flush=True)
        if done:
            files = {**writer.tables.write(folder, predictor.classes), **writer.videos}
            made = dict(
                config=cfg.filename,
                command=shlex.join(['python', '-m', 'nfnet_mm', *sys.argv[1:]]),
                device=predictor.device,
                network='folded: standardised weights computed once' if predictor.folded else 'as it is in the config',
                batch=f'{batch_size} at most',
                seconds=f'{time.time() - start:.1f}, with loading the model',
            )
            write_page(folder, writer.shown, writer.tables, files, Path(checkpoint), predictor.meta, made, notes)
    if not done:
        raise UserError(f'none of the {len(paths)} files can be read as an image')
    left_out = f', {len(skipped)} skipped' if skipped else ''
    print(f'{done} image{"s" * (done != 1)} predicted{left_out}: pictures, JSON and index.html in {out}')
    return done
