"""Pictures that are missing, empty, cut or of another kind, in training and in validation, with data workers."""

import os

import cv2
import numpy as np
import pytest
from mmcv.transforms import LoadImageFromFile

from nfnet_mm import run
from nfnet_mm.engine.broken_pictures import _load
from nfnet_mm.errors import UserError
from tests import toy

CONFIG = (
    toy.CONFIG
    + """
default_scope = 'mmpretrain'
model = dict(type='mmpretrain.ImageClassifier', backbone=dict(type='nfnet_mm.NFNet', arch='nano', out_indices=(4,)),
             neck=dict(type='mmpretrain.GlobalAveragePooling'),
             head=dict(type='mmpretrain.LinearClsHead', num_classes=2, in_channels=256))
pipeline = [dict(type='mmpretrain.LoadImageFromFile'), dict(type='mmpretrain.PackInputs')]
data = dict(batch_size=2, num_workers=1, sampler=dict(type='DefaultSampler', shuffle=False),
            collate_fn=dict(type='default_collate'))
dataset = dict(type='mmpretrain.CustomDataset', data_root='{root}', pipeline=pipeline)
train_dataloader = dict(data, dataset=dict(dataset, data_prefix='train'))
val_dataloader = dict(data, dataset=dict(dataset, data_prefix='val', test_mode=True))
val_evaluator = dict(type='mmpretrain.Accuracy')
param_scheduler = []
train_cfg = dict(type='IterBasedTrainLoop', max_iters=6, val_interval=6)
custom_hooks = [dict(type='nfnet_mm.BrokenPicturesHook', limit=4)]
"""
)


@pytest.fixture
def pictures(tmp_path):
    image = np.random.RandomState(0).randint(0, 255, (32, 32, 3), np.uint8)
    for split in ('train', 'val'):
        for name in 'ab':
            (tmp_path / split / name).mkdir(parents=True)
            for number in range(6):
                cv2.imwrite(str(tmp_path / split / name / f'{number}.png'), image)
    return tmp_path


def train(folder, name, limit=4):
    (folder / 'config.py').write_text(CONFIG.replace('{root}', str(folder)).replace('limit=4', f'limit={limit}'))
    options = dict(experiment_name=f'{folder}{name}')
    cfg = run.load_config(str(folder / 'config.py'), options, str(folder / 'run'))
    run.build_runner(cfg).train()


def spoil(folder):
    first, second, third = (folder / 'train' / name for name in ('a/0.png', 'a/3.png', 'b/1.png'))
    first.write_bytes(b'')
    second.write_text('<html>not found</html>')
    os.truncate(third, 20)
    return first, second, third


def test_they_are_skipped_named_and_counted(pictures):
    broken = spoil(pictures)
    train(pictures, 'skip')
    assert sorted((pictures / 'run/broken_pictures.txt').read_text().split()) == sorted(map(str, broken))
    with pytest.raises(UserError, match=r"png' cannot be read: .*It is one too many: more than .* limit=2 pictures"):
        (pictures / 'run/broken_pictures.txt').unlink()
        train(pictures, 'limit', 2)


def test_a_picture_to_be_scored_ends_the_run_with_its_name(pictures):
    (pictures / 'val/a/2.png').write_bytes(b'')
    with pytest.raises(UserError, match=r"^picture '.*/val/a/2.png' cannot be read: the file is empty$"):
        train(pictures, 'val')


def test_one_that_is_missing_is_told_and_what_is_no_fault_of_the_file_s_is_not(pictures):
    step = LoadImageFromFile()
    with pytest.raises(UserError, match='gone.png. cannot be read: No such file or directory'):
        _load(step, pictures / 'list', None, dict(img_path=str(pictures / 'gone.png')))
    assert _load(step, pictures / 'list', 1, dict(img_path=str(pictures / 'gone.png'))) is None
    step.imdecode_backend = 'none'
    with pytest.raises(ValueError, match='backend'):
        _load(step, pictures / 'list', 1, dict(img_path=str(pictures / 'val/a/0.png')))


def test_a_jpeg_that_is_cut_off_is_skipped_though_a_decoder_makes_a_picture_of_it(pictures, log_lines, monkeypatch):
    step, listed = LoadImageFromFile(), pictures / 'list'
    noise = np.random.RandomState(1).randint(0, 255, (64, 64, 3), np.uint8)
    whole = cv2.imencode('.jpg', noise)[1].tobytes()
    thumbnail = whole[:2] + b'\xff\xe1' + (len(whole) + 2).to_bytes(2, 'big') + whole + whole[2:]  # with an end inside
    path = pictures / 'train/a/0.jpg'
    for content, cut in (
        (whole, False),
        (whole + bytes(2000), False),  # padded
        (thumbnail, False),
        (whole[: len(whole) // 2], True),
        (whole[:-2], True),
        (thumbnail[: -len(whole) // 2], True),
    ):
        path.write_bytes(content)
        assert (_load(step, listed, 9, dict(img_path=str(path))) is None) == cut, len(content)
    assert listed.read_text().splitlines() == [str(path)]
    # to be scored, it is what the decoder makes of it: some make a grey rest of what is missing, some refuse
    path.write_bytes(whole[:-2])
    monkeypatch.setattr(LoadImageFromFile, 'transform', lambda self, results: results)
    assert _load(step, listed, None, dict(img_path=str(path)))
    assert f"picture '{path}' is scored as it is, but it is cut off: a JPEG without its end" in log_lines()
