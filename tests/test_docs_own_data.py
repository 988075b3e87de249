"""The pages on one's own data, from their folders to their scripts, on generated data and with the smallest network."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.registry import MODELS, init_default_scope

from nfnet_mm import run

ROOT = Path(__file__).parents[1]
LOADERS = {
    f'{split}_dataloader.{key}': value
    for split in ('train', 'val', 'test')
    for key, value in (('num_workers', 0), ('persistent_workers', False))
}
QUICK = {'train_cfg.max_epochs': 1, 'train_cfg.total_batch': 8, 'train_dataloader.batch_size': 4, **LOADERS}
OPTIONS = {
    'classification': {
        'model.backbone.arch': 'nano',
        'model.head.in_channels': 256,
        'train_dataloader.dataset.pipeline.1.scale': 32,
        'val_dataloader.dataset.pipeline.1.size': 32,
        'test_dataloader.dataset.pipeline.1.size': 32,
    },
    'detection': {
        'model.backbone.arch': 'nano',
        'model.neck.in_channels': [32, 64, 96, 128],
        'model.data_preprocessor.batch_augments.0.size': (128, 128),
        'train_dataloader.dataset.pipeline.2.scale': (128, 128),
        'train_dataloader.dataset.pipeline.3.crop_size': (128, 128),
        'val_dataloader.dataset.pipeline.1.scale': (128, 128),
        'test_dataloader.dataset.pipeline.1.scale': (128, 128),
        'model.train_cfg.rpn_proposal.max_per_img': 20,
        'model.test_cfg.rpn.max_per_img': 10,
    },
    'segmentation': {
        'model.backbone.arch': 'nano',
        'model.decode_head.in_channels': 128,
        'model.decode_head.channels': 16,
        'model.data_preprocessor.size': (64, 64),
        'train_dataloader.dataset.pipeline.3.crop_size': (64, 64),
    },
}
PACKAGES = {'classification': 'mmpretrain', 'detection': 'mmdet', 'segmentation': 'mmseg'}


def blocks(task):
    """(configs, scripts) of a page."""
    text = (ROOT / f'docs/own_data_{task}.md').read_text()
    found = re.findall(r'```python\n(.*?)```', text, re.S)
    return [block for block in found if block.startswith('_base_')], [
        block for block in found if '\nresult = ' in block
    ]


@pytest.fixture
def folder(tmp_path, monkeypatch, digits_root):
    """A folder with the data that the pages lay out; the current one, as a user's."""
    random = np.random.default_rng(0)
    for split, count in (('train', 3), ('val', 1)):
        for number, name in enumerate(('daisy', 'iris', 'lily', 'rose', 'tulip')):
            (tmp_path / f'flowers/{split}/{name}').mkdir(parents=True)
            for i in range(1, count + 1):
                picture = random.integers(40 * number, 40 * number + 60, (40, 40, 3), dtype=np.uint8)
                cv2.imwrite(str(tmp_path / f'flowers/{split}/{name}/{i}.png'), picture)
        for kind in ('images', 'annotations'):
            (tmp_path / f'leaves/{kind}/{split}').mkdir(parents=True)
        for i in range(1, 4 * count + 1):
            labels = random.integers(0, 11, (8, 8), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
            for suffix in ('jpg', 'png'):
                cv2.imwrite(str(tmp_path / f'leaves/images/{split}/{i:06d}.{suffix}'), labels[..., None] * [20, 10, 5])
            cv2.imwrite(str(tmp_path / f'leaves/annotations/{split}/{i:06d}.png'), labels)
    (tmp_path / 'shapes').symlink_to(digits_root)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def written(folder, task, block):
    """The page's config as a file of the user's; public weights are not at hand in a test."""
    name = re.search(r"data_root = '(\w+)'", block)[1]
    path = folder / f'{name}.py'
    path.write_text(block.replace("weights = 'deepmind/F0'", 'weights = None'))
    return path


def trained(run_tool, config, task):
    options = [f'{key}={str(value).replace(" ", "")}' for key, value in (QUICK | OPTIONS[task]).items()]
    code, errors = run_tool('train', config, '--cfg-options', *options)
    assert code == 0, errors[-2000:]
    return config.parent / 'work_dirs' / config.stem


@pytest.mark.parametrize('task', PACKAGES)
def test_every_config_of_a_page_loads_fits_its_data_and_builds(task, folder):
    pytest.importorskip(PACKAGES[task])
    configs, scripts = blocks(task)
    # the shortest, one without masks or with names, the smallest network, a grayscale one
    assert len(configs) == (3 if task == 'classification' else 4) and len(scripts) == 1
    assert sum("arch='nano'" in block for block in configs) == 1
    for block in configs:
        for options in ({}, OPTIONS[task] if 'mask_head=None' not in block else {}):
            cfg = run.load_config(str(written(folder, task, block)), options)
            run.check_data(cfg, ('train', 'val', 'test'))
            init_default_scope(cfg.default_scope)
            with torch.device('meta'):
                model = MODELS.build(cfg.model)
            head = getattr(model, 'head', None) or getattr(model, 'decode_head', None) or model.roi_head.bbox_head
            assert head.num_classes == int(re.search(r'num_classes = (\d+)', block)[1])
            assert model.backbone.in_channels == (1 if 'grayscale' in block else 3)


@pytest.mark.parametrize(
    'task', [pytest.param(task, marks=() if task == 'classification' else pytest.mark.slow) for task in PACKAGES]
)
def test_a_page_from_its_folders_to_its_script(task, folder, run_tool):
    """Trains the page's second config (its first, in detection), scores it, and runs the script on a picture."""
    pytest.importorskip(PACKAGES[task])
    configs, scripts = blocks(task)
    config = written(folder, task, configs[0 if task == 'detection' else 1])
    work = trained(run_tool, config, task)
    checkpoint = (work / 'last_checkpoint').read_text().rpartition('/')[2]
    code, errors = run_tool('test', work / config.name, work / checkpoint, '--work-dir', folder / 'tested')
    assert code == 0, errors[-2000:]
    script = scripts[0].replace('CHECKPOINT.pth', checkpoint)
    mine = {key: value for key, value in os.environ.items() if key != 'TORCH_FORCE_WEIGHTS_ONLY_LOAD'}  # set by test
    done = subprocess.run([sys.executable, '-c', script], cwd=folder, capture_output=True, text=True, env=mine)
    assert done.returncode == 0, done.stderr[-3000:]
    last = done.stdout.strip().splitlines()[-1]
    if task == 'classification':
        assert re.search(r'(daisy|iris|lily|rose|tulip) 0\.\d+$', last), last
    elif task == 'segmentation':
        assert last.endswith('(64, 64)')
    else:
        assert set(json.loads(last.replace("'", '"'))) <= set('0123456789')


@pytest.mark.parametrize(
    'task', [pytest.param(task, marks=() if task == 'classification' else pytest.mark.slow) for task in PACKAGES]
)
def test_the_grayscale_config_of_a_page_trains(task, folder, run_tool):
    pytest.importorskip(PACKAGES[task])
    config = written(folder, task, blocks(task)[0][-1])
    assert "in_channels='mean'" in config.read_text()
    work = trained(run_tool, config, task)
    state = run.read_checkpoint(work / (work / 'last_checkpoint').read_text().rpartition('/')[2])
    assert state['state_dict']['backbone.stem.conv0.weight'].shape[1] == 1


def test_the_depth_config_of_the_page(tmp_path):
    block = re.search(r'## Your own data.*?```python\n(.*?)```', (ROOT / 'docs/depth.md').read_text(), re.S)[1]
    config = tmp_path / 'rooms.py'
    config.write_text(block.replace('/path/to/nfnet_mm/', f'{ROOT}/'))
    cfg = run.load_config(str(config))
    assert {cfg[f'{split}_dataloader'].dataset.data_root for split in ('train', 'val', 'test')} == {'rooms/'}
    assert (cfg.train_cfg.total_batch, cfg.train_cfg.lr_batch, cfg.train_cfg.max_iters) == (32, 256, 2000)
    assert cfg.default_hooks.checkpoint.save_best == 'delta1'


def test_getting_started(tmp_path, monkeypatch):
    """The page's script draws what the page's config takes, and the network has the widths that it states."""
    monkeypatch.chdir(tmp_path)
    script, config = re.findall(r'```python\n(.*?)```', (ROOT / 'docs/getting_started.md').read_text(), re.S)
    exec(script, {})
    (tmp_path / 'flowers.py').write_text(config)
    cfg = run.load_config('flowers.py')
    run.check_data(cfg, ('train', 'val'))
    init_default_scope('mmpretrain')
    model = MODELS.build(cfg.model)
    assert model.backbone.out_channels == (model.head.in_channels,) and model.head.num_classes == 3
    images = len(list(tmp_path.glob('flowers/train/*/*.jpg')))
    updates = cfg.train_cfg.max_epochs * images // cfg.train_cfg.total_batch
    assert f'iter_{updates}.pth' in (ROOT / 'docs/getting_started.md').read_text()
    daisy, rose = (cv2.imread(f'flowers/val/{name}/0.jpg').reshape(-1, 3) for name in ('daisy', 'rose'))
    assert np.percentile(daisy[:, 0], 99) > 180 > 120 > np.percentile(rose[:, 0], 99)  # blue: white against red
