"""Pictures as a network takes them, to find out how large its activations become."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine import Config
from mmengine.dataset import Compose, pseudo_collate

from nfnet_mm.errors import UserError, short


def calibration_images(cfg: Config, model: Any, files: Sequence[Path], count: int = 256) -> Iterator[np.ndarray]:
    """Pictures from all over a list, through a config's test pipeline and its model's data preprocessor.

    Args:
        cfg: of the model.
        model: whose ``data_preprocessor`` normalises.
        files: of pictures.
        count: the most to take.

    Yields: (1, 3, H, W) float32.

    Raises:
        UserError: no pictures, or one that the pipeline cannot read.
    """
    if not files:
        raise UserError('no pictures to calibrate with')
    steps = [step for step in cfg.test_dataloader.dataset.pipeline if 'Annotation' not in str(step['type'])]
    pipeline = Compose(steps)
    chosen = [files[i] for i in np.linspace(0, len(files) - 1, min(count, len(files))).round().astype(int)]
    return _load(chosen, pipeline, model)


def _load(files: list[Path], pipeline: Any, model: Any) -> Iterator[np.ndarray]:
    for file in files:
        try:
            sample = pipeline(dict(img_path=str(file), img_id=0, seg_fields=[], sample_idx=0))
        except Exception as error:  # of any transform
            raise UserError(f'{str(file)!r} cannot be read by the test pipeline ({short(error)})') from error
        yield model.data_preprocessor(pseudo_collate([sample]), False)['inputs'].numpy()
