"""A made-up batch of a config: pictures and answers of its framework, through its own train pipeline."""

import copy
import tempfile
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from mmengine import Config
from mmengine.dataset import Compose
from mmengine.registry import FUNCTIONS

from nfnet_mm.engine.total_batch import images_per_sample
from nfnet_mm.errors import UserError, short
from nfnet_mm.registry import type_name
from nfnet_mm.run.datasets import datasets

PHOTO = (480, 640)  # height and width of a typical photo (COCO's); the pipeline makes the training size of it
_DISTINCT = 8  # pictures that are made; a larger batch repeats them
_TRIES = 20  # a random crop may leave nothing to learn from, and the pipeline then drops the picture


def made_up_batch(cfg: Config, batch_size: int | None = None, size: tuple[int, int] | None = None) -> Any:
    """What a data loader of the config would give: pictures of noise with made-up answers, collated.

    Args:
        cfg: a config of mmdet, mmseg, mmpretrain or alike.
        batch_size: pictures that the model gets, after any are mixed two by two; by default as the config says.
        size: height and width of the pictures; by default the train pipeline makes its own of 480 x 640 pixels.

    Raises:
        UserError: the pipeline does not run on such pictures.
    """
    pipeline, collate = _pipeline(cfg), _collate(cfg)
    loaded = batch_size * images_per_sample(collate) if batch_size else cfg.train_dataloader.get('batch_size', 1)
    if size:  # nothing that would change it
        pipeline = [one for one in pipeline if type_name(one).startswith(('Load', 'Pack'))]
    try:
        run = Compose(pipeline)
        with tempfile.TemporaryDirectory() as folder:
            seen = _made_up_files(Path(folder), *(size or PHOTO), _classes(cfg.model))
            samples = [_loaded(run, seen) for _ in range(min(loaded, _DISTINCT))]
    except UserError:
        raise
    except Exception as error:  # a pipeline is the user's program, made for real data
        reason = f'{type(error).__name__}: {short(error)}'.removesuffix(': ')
        what = f'the train pipeline does not run on made-up pictures: {reason}'
        raise UserError(what if size else f'{what}; --size HEIGHT WIDTH measures without it') from error
    return collate([copy.deepcopy(samples[i % len(samples)]) for i in range(loaded)])


def _pipeline(cfg: Config) -> list[dict[str, Any]]:
    """The transforms of the first training data set, and of what is wrapped around it."""
    outer = (cfg.get('train_dataloader') or {}).get('dataset') or {}
    inner = next(iter(datasets(outer)), {})
    pipeline = list(inner.get('pipeline') or ())
    if inner is not outer:
        pipeline += outer.get('pipeline') or ()
    if not pipeline:
        raise UserError(
            'the config has no train pipeline (train_dataloader.dataset.pipeline), which says what a batch is'
        )
    return pipeline


def _loaded(run: Compose, seen: Mapping[str, Any]) -> Any:
    for _ in range(_TRIES):
        sample = run(copy.deepcopy(dict(seen)))
        if sample is not None:
            return sample
    raise UserError(
        f'the train pipeline dropped a made-up picture {_TRIES} times; --size HEIGHT WIDTH measures without it'
    )


def _numbers_of_classes(part: Any) -> Iterator[int]:
    if isinstance(part, Mapping):
        for key, value in part.items():
            if key == 'num_classes' and isinstance(value, int):
                yield value
            else:
                yield from _numbers_of_classes(value)
    elif isinstance(part, (list, tuple)):
        for value in part:
            yield from _numbers_of_classes(value)


def _classes(model: Mapping[str, Any]) -> int:
    """As many classes as every head of a model has, at most four."""
    return max(1, min([*_numbers_of_classes(model), 4]))


def _made_up_files(folder: Path, height: int, width: int, classes: int) -> dict[str, Any]:
    """Noise as a picture, four objects, a map of classes and one of depths: what the data sets of the stack name."""
    import cv2

    random = np.random.default_rng(0)
    blocks = random.integers(0, classes, (4, 4), dtype=np.uint8)
    arrays = dict(
        img=random.integers(0, 256, (height, width, 3), dtype=np.uint8),
        seg_map=cv2.resize(blocks, (width, height), interpolation=cv2.INTER_NEAREST),
        depth_map=random.integers(500, 9500, (height, width), dtype=np.uint16),  # millimetres
    )
    paths = {f'{name}_path': str(folder / f'{name}.png') for name in arrays}
    for name, array in arrays.items():
        cv2.imwrite(paths[f'{name}_path'], array)
    boxes = np.array([[0.02, 0.02, 0.98, 0.98], [0.1, 0.1, 0.5, 0.6], [0.3, 0.2, 0.9, 0.8], [0.6, 0.5, 0.95, 0.95]])
    boxes *= [width, height, width, height]
    objects = [
        dict(bbox=[x1, y1, x2, y2], bbox_label=i % classes, ignore_flag=0, mask=[[x1, y1, x2, y1, x2, y2, x1, y2]])
        for i, (x1, y1, x2, y2) in enumerate(boxes.tolist())
    ]
    known = dict(img_id=0, sample_idx=0, height=height, width=width, ori_shape=(height, width), instances=objects)
    answers: dict[str, Any] = dict(
        gt_label=np.array(0), label_map=None, reduce_zero_label=False, seg_fields=[], category_id=0
    )
    return {**known, **answers, **paths}


def _collate(cfg: Config) -> Any:
    options = dict(cfg.train_dataloader.get('collate_fn') or dict(type='pseudo_collate'))
    kind = options.pop('type')
    return partial(FUNCTIONS.get(kind) if isinstance(kind, str) else kind, **options)
