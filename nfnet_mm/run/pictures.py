"""Pictures of what a test run predicts."""

import inspect
import os
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from mmengine.fileio import get
from mmengine.hooks import Hook

from nfnet_mm.errors import UserError, check_number, check_positive

if TYPE_CHECKING:
    from mmengine.runner import Runner

_SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp')
_SHORT_SIDE = 224  # of a classified picture, less than which leaves no room for the text on it


def show_predictions(
    runner: 'Runner', show: bool = False, directory: str | None = None, wait_time: float = 2.0, interval: int = 1
) -> None:
    """Draw the predictions of a test run with its framework's visualizer.

    Args:
        runner: unchanged if neither ``show`` nor ``directory`` is given.
        show: open a window per picture.
        directory: write the pictures there, by their paths below the folder that holds them all; made if need be.
        wait_time: how long a window stays, in seconds.
        interval: of the pictures, draw every so many.

    Raises:
        UserError: the config's visualizer draws no predictions, there is no display or the folder cannot be made, or
            there are several processes, of which the visualizers draw in one.
    """
    if not (show or directory):
        return
    check_positive('--interval', interval)
    check_number('--wait-time', wait_time, '[0, inf)', ', in seconds')
    option = '--show' if show else '--show-dir'
    if not hasattr(runner.visualizer, 'visualize_cls') and 'out_file' not in _arguments(runner.visualizer):
        known = 'mmdet.DetLocalVisualizer, mmseg.SegLocalVisualizer or mmpretrain.UniversalVisualizer'
        what = f'visualizer.type {type(runner.visualizer).__name__!r} draws no predictions'
        raise UserError(f'{option}: {what}: set it to {known}')
    if runner.world_size > 1:
        raise UserError(f'{option}: pictures are drawn in one process, here are {runner.world_size}: use tools/test.py')
    if show and sys.platform == 'linux' and not {'DISPLAY', 'WAYLAND_DISPLAY'} & os.environ.keys():
        raise UserError('--show needs a display, and there is none: --show-dir FOLDER writes the pictures')
    if directory:
        try:
            os.makedirs(directory, exist_ok=True)
        except OSError as error:
            raise UserError(f'--show-dir {directory!r}: {error.strerror}') from None
    hook = (runner.cfg.get('default_hooks') or {}).get('visualization') or {}
    runner.register_hook(PredictionPictures(directory, interval, dict(show=show, wait_time=wait_time), hook))


class PredictionPictures(Hook):
    """Draw every so many of the pictures that a run is tested on; at the end, say how many and where they are.

    The frameworks' own hooks leave out what has the same file name in another folder, mmseg's writes into a folder of
    the visualizer, and mmdet's begins a folder in the folder at every batch if it is named by a relative path.

    Args:
        directory: where to write; None to write nothing.
        interval: of the pictures, draw every so many.
        drawing: arguments of the visualizer's method.
        hook: config of the framework's own hook, for its ``score_thr`` and ``backend_args``.
    """

    def __init__(self, directory: str | None, interval: int, drawing: Mapping[str, Any], hook: Mapping[str, Any]):
        self.directory, self.interval, self.drawing = directory, interval, drawing
        self.score_thr, self.backend_args = hook.get('score_thr', 0.3), hook.get('backend_args')
        self.seen = 0
        self.drawn: set[str] = set()
        self.root: str | None = None

    def before_test(self, runner: 'Runner') -> None:
        self.root = _common_folder(runner.test_dataloader.dataset)

    def after_test_iter(
        self, runner: 'Runner', batch_idx: int, data_batch: Any = None, outputs: Sequence[Any] | None = None
    ) -> None:
        for i, sample in enumerate(outputs or ()):
            if self.seen % self.interval == 0:
                path = sample.get('img_path')
                # a data set in memory has no files
                image = self._read(path) if path else _as_image(data_batch['inputs'][i])
                self._draw(runner.visualizer, image, sample.cpu(), self._name(path))
            self.seen += 1

    def after_test(self, runner: 'Runner') -> None:
        if self.directory:
            of = f' (of {self.seen}; --interval {self.interval})' if self.interval > 1 else ''
            runner.logger.info(f'{len(self.drawn)} pictures{of} written to {os.path.abspath(self.directory)}')

    def _draw(self, visualizer: Any, image: np.ndarray, sample: Any, name: str) -> None:
        given = dict(self.drawing, name=name, step=self.seen)
        if self.directory:
            given['out_file'] = os.path.join(self.directory, name)
            if os.path.realpath(given['out_file']) == os.path.realpath(sample.get('img_path') or ''):
                raise UserError(f'--show-dir {self.directory!r} is where the pictures of the data are: name another')
        if hasattr(visualizer, 'visualize_cls'):
            small = min(image.shape[:2]) < _SHORT_SIDE
            visualizer.visualize_cls(image, sample, resize=_SHORT_SIDE if small else None, **given)
        else:
            if 'pred_score_thr' in _arguments(visualizer):
                given['pred_score_thr'] = self.score_thr
            visualizer.add_datasample(image=image, data_sample=sample, **given)
        self.drawn.add(name)

    def _name(self, path: str | None) -> str:
        """The file to write of a picture, below the folder; each another."""
        name = f'{self.seen:06}.png'
        if path:
            name = os.path.relpath(path, self.root) if self.root else os.path.basename(path)
            name += '' if name.lower().endswith(_SUFFIXES) else '.png'
        return f'{self.seen:06}_{os.path.basename(name)}' if name in self.drawn else name

    def _read(self, path: str) -> np.ndarray:
        import cv2

        content = np.frombuffer(get(path, backend_args=self.backend_args), np.uint8)
        image = cv2.imdecode(content, cv2.IMREAD_COLOR)
        if image is None:
            raise UserError(f'predictions for {path!r} cannot be drawn: OpenCV reads no picture from it')
        return image[..., ::-1].copy()  # RGB


def _arguments(visualizer: Any) -> Mapping[str, Any]:
    return inspect.signature(visualizer.add_datasample).parameters


def _as_image(inputs: Any) -> np.ndarray:
    """(H, W, 3) uint8 of a (C, H, W) tensor."""
    image = inputs.permute(1, 2, 0).clamp(0, 255).cpu().numpy().astype(np.uint8)
    return image if image.shape[-1] == 3 else np.repeat(image[..., :1], 3, axis=-1)


def _common_folder(dataset: Any) -> str | None:
    """The folder that all pictures of a data set are below; None where it names no files."""
    if not hasattr(dataset, 'get_data_info'):
        return None
    paths = [dataset.get_data_info(i).get('img_path') for i in range(len(dataset))]
    folders = {os.path.dirname(os.path.abspath(path)) for path in paths if path}
    return os.path.commonpath(folders) if folders else None
