"""What it costs to load a training picture, step by step, and how many data workers that takes."""

import math
import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from mmengine import Config
from mmengine.dataset import Compose
from mmengine.fileio import get
from mmengine.registry import FUNCTIONS, init_default_scope

from nfnet_mm.engine.total_batch import images_per_sample
from nfnet_mm.errors import UserError, check_number, check_positive
from nfnet_mm.registry import type_name

_SIDES = (4, 8, 16, 32, 64, 128, 256)  # of the noise that a made-up photo consists of, in pixels
_AMPLITUDE, _QUALITY = 250, 95  # chosen for files of 110 kB, ImageNet's mean


@dataclass(frozen=True)
class LoadingCost:
    """CPU seconds of one process for one picture that is loaded, by step; the last is what makes the batch."""

    steps: dict[str, float]
    images_per_sample: int  # two where they are mixed two by two

    @property
    def images_per_second(self) -> float:
        """What one worker loads."""
        return 1 / sum(self.steps.values())

    def workers(self, samples_per_second: float) -> int:
        """How many workers feed a GPU that trains on so many samples a second.

        >>> LoadingCost(dict(load=0.001, collate=0.0005), images_per_sample=2).workers(1000)
        3
        """
        check_number('samples_per_second', samples_per_second, '(0, inf)')
        return math.ceil(samples_per_second * self.images_per_sample / self.images_per_second - 1e-9)


def write_photos(folder: str, count: int, seed: int = 0) -> list[str]:
    """Write JPEGs of ImageNet's size: 450-550 x 338-412 pixels and 110 kB in the mean, of noise of all scales.

    Returns:
        their paths.
    """
    import cv2

    random, paths = np.random.default_rng(seed), []
    for i in range(check_positive('count', count)):
        height, width = (int(side * random.uniform(0.9, 1.1)) for side in (375, 500))
        photo = np.full((height, width, 3), 128.0)
        for side in _SIDES:
            noise = random.normal(0, _AMPLITUDE / side**0.5, (side, side, 3))
            photo += cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
        paths.append(os.path.join(folder, f'{i}.jpg'))
        cv2.imwrite(paths[-1], photo.clip(0, 255).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    return paths


def loading_cost(cfg: Config, paths: Sequence[str], repeats: int = 7) -> LoadingCost:
    """Time a classification config's training pipeline and collate function on pictures, in this process.

    It is CPU time, with one thread as in a data worker, so that other processes disturb it little.

    Args:
        cfg: the config.
        paths: of the pictures, which make one batch.
        repeats: of the whole; the medians count, and a first time does not.

    Raises:
        UserError: the config's training data set has no pipeline.
    """
    dataset = (cfg.get('train_dataloader') or {}).get('dataset') or {}
    if not dataset.get('pipeline'):
        raise UserError('train_dataloader.dataset.pipeline is missing: the config loads no pictures')
    _one_thread()
    init_default_scope(cfg.get('default_scope') or 'mmengine')
    pipeline = Compose(dataset['pipeline'])
    collate = dict(cfg.train_dataloader.get('collate_fn') or dict(type='pseudo_collate'))
    function: Any = FUNCTIONS.get(collate.pop('type'))
    function = partial(function, **collate)
    times: dict[str, list[float]] = {}
    for turn in range(repeats + 1):
        items: Any = [dict(img_path=path, gt_label=i % 10) for i, path in enumerate(paths)]
        for number, step in enumerate(pipeline.transforms):
            items, spent = _timed(_each, step, items)
            if turn:
                times.setdefault(type_name(dataset['pipeline'][number]), []).append(spent / len(paths))
        spent = _timed(function, items)[1]
        if turn:
            times.setdefault(function.func.__name__, []).append(spent / len(paths))
    return LoadingCost({name: statistics.median(spent) for name, spent in times.items()}, images_per_sample(function))


def reading_cost(paths: Sequence[str], repeats: int = 7) -> float:
    """CPU seconds of this process to read one file, from the disk or from a pack, through mmengine; the median."""
    spent = [_timed(_each, get, paths)[1] for _ in range(repeats + 1)][1:]
    return statistics.median(spent) / len(paths)


def _one_thread() -> None:
    import cv2
    import torch

    cv2.setNumThreads(0)
    torch.set_num_threads(1)


def _each(step: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
    return [step(item) for item in items]


def _timed(work: Callable[..., Any], *args: Any) -> tuple[Any, float]:
    began = time.process_time()
    return work(*args), time.process_time() - began
