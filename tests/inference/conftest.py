"""Photographs, and models of the demos with random weights."""

from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine import Config
from mmengine.registry import MODELS, init_default_scope

cv2 = pytest.importorskip('cv2')
CONFIGS = Path(__file__).parents[2] / 'demo/configs'
TASKS = dict(
    mmdet='mask_rcnn_nfnet_nano_digits',
    mmpretrain='classify_nfnet_nano_digits',
    mmseg='fcn_nfnet_nano_digits',
    depth='depth_nfnet_nano_rooms',
)


@pytest.fixture(scope='module')
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp('photos')
    (folder / 'more').mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8)
    for name in ('a.png', 'b.jpg', 'more/a.jpg'):
        cv2.imwrite(str(folder / name), noise)
    (folder / 'broken.png').write_bytes((folder / 'a.png').read_bytes()[:40])
    (folder / 'notes.txt').write_text('no image')
    return folder


@pytest.fixture
def model(tmp_path):
    """(config, checkpoint) of a task, and its model."""

    def make(task, **meta):
        pytest.importorskip('mmseg' if task == 'depth' else task)
        path = CONFIGS / f'{TASKS[task]}.py'
        cfg = Config.fromfile(path)
        init_default_scope(cfg.default_scope)
        torch.manual_seed(0)
        built = MODELS.build(cfg.model)
        built.init_weights()
        checkpoint = tmp_path / 'model.pth'
        torch.save(dict(state_dict=built.state_dict(), meta=meta), checkpoint)
        return str(path), str(checkpoint), built

    make.configs = CONFIGS
    return make
