"""Runs whose data is a pack, against the same runs from the folder: every bit, for all frameworks."""

import json

import cv2
import numpy as np
import pytest
import torch
from mmengine.registry import DATASETS, METRICS, MODELS
from mmengine.runner import Runner

from nfnet_mm import commands, run
from nfnet_mm.errors import UserError
from nfnet_mm.pack import write_pack
from tests import toy
from tests.test_own_data import CONFIGS, load, write_coco

CONFIG = (
    toy.CONFIG.replace('tests.toy', 'tests.test_packs')
    + """
default_scope = 'mmpretrain'
model = dict(type='ToyPixels')
pipeline = [dict(type='mmpretrain.LoadImageFromFile'), dict(type='nfnet_mm.RandomResizedCrop', scale=24),
            dict(type='mmpretrain.RandomFlip', prob=0.5), dict(type='mmpretrain.PackInputs')]
data = dict(batch_size=4, num_workers=2, collate_fn=dict(type='default_collate'))
train_dataloader = dict(
    data, sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(type='mmpretrain.CustomDataset', data_root='FOLDER', data_prefix='train', pipeline=pipeline))
val_dataloader = dict(data, sampler=dict(type='DefaultSampler', shuffle=False), dataset=dict(
    type='mmpretrain.CustomDataset', data_root='FOLDER', data_prefix='val', test_mode=True,
    pipeline=[pipeline[0], dict(type='nfnet_mm.CropResize', size=24), pipeline[-1]]))
val_evaluator = dict(type='ToyError')
test_dataloader, test_evaluator = val_dataloader, val_evaluator
"""
)


@MODELS.register_module(force=True)
class ToyPixels(toy.ToyLinear):
    """Tells the label from three pixels."""

    def forward(self, inputs, data_samples, mode='tensor'):
        labels = [sample.gt_label[0].float() for sample in data_samples]
        return super().forward([image[:, 11, 5] / 255 for image in inputs], labels, mode)


def noise(path, seed, size=(40, 48)):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.random.default_rng(seed).integers(0, 255, (*size, 3), np.uint8))


@pytest.fixture
def folder(tmp_path):
    for split in ('train', 'val'):
        for i in range(10):
            noise(tmp_path / f'data/{split}/{"ab"[i % 2]}/{i}.jpg', i)
    (tmp_path / 'config.py').write_text(CONFIG.replace('FOLDER', str(tmp_path / 'data')))
    return tmp_path / 'data'


def pack(folder):
    target = f'{folder}.tar'
    write_pack(str(folder), target)
    return target


def train(folder, name, root, resume=None, workers=0):
    options = {'experiment_name': f'{folder}{name}{resume}', 'data_root': str(root), 'train_cfg.val_interval': 100}
    options['train_dataloader.num_workers'] = workers
    cfg = run.load_config(str(folder.parent / 'config.py'), options, str(folder.parent / name))
    run.check_data(cfg, ('train', 'val'))
    run.use_resume(cfg, resume)
    runner = run.build_runner(cfg)
    runner.train()
    return run.read_checkpoint(folder.parent / name / 'iter_4.pth')


def test_a_run_is_the_same_from_a_pack_and_when_it_is_resumed_from_one(folder):
    packed = pack(folder)
    want = train(folder, 'files', folder)
    got = train(folder, 'pack', packed, workers=2)
    (folder.parent / 'pack/iter_4.pth').unlink()
    resumed = train(folder, 'pack', packed, str(folder.parent / 'pack/iter_2.pth'), workers=1)
    for other in (got, resumed):
        torch.testing.assert_close(other['state_dict'], want['state_dict'], rtol=0, atol=0)
        torch.testing.assert_close(other['optimizer']['state'], want['optimizer']['state'], rtol=0, atol=0)
    before = run.read_checkpoint(folder.parent / 'files/iter_2.pth')['state_dict']
    assert any(not torch.equal(before[key], want['state_dict'][key]) for key in before)


def test_what_is_damaged_or_no_picture_is_skipped_and_counted(folder):
    (folder / 'train/a/2.jpg').write_bytes(b'')
    packed = pack(folder)
    with open(packed, 'r+b') as file:
        content = file.read()
        at = content.index((folder / 'train/b/5.jpg').read_bytes()) + 700
        file.seek(at)
        file.write(bytes([content[at] ^ 255]))
    train(folder, 'run', packed)
    found = (folder.parent / 'run/broken_pictures.txt').read_text().split()
    assert sorted(found) == [f'pack://{packed}/train/a/2.jpg', f'pack://{packed}/train/b/5.jpg']
    log = next((folder.parent / 'run').rglob('*.log')).read_text()
    assert "train/a/2.jpg' is skipped, it cannot be read: the file is empty" in log
    assert "is damaged at 'train/b/5.jpg': its bytes are not those that were packed" in log


@pytest.mark.parametrize('split', ['train', 'val'])
def test_a_pack_of_other_files_is_told_before_anything_is_built(folder, split):
    (folder / split).rename(folder / 'other')
    packed = pack(folder)
    kept = {'train': 'val', 'val': 'train'}[split]
    with pytest.raises(
        UserError,
        match=f"{split}_dataloader: the folder '{split}' is not in the pack 'pack://{packed}/', which holds"
        f' {", ".join(sorted(["other", kept]))}$',
    ):
        train(folder, 'run', packed)
    with pytest.raises(UserError, match=r"pack '.*/gone.tar' does not exist; in .*did you mean 'data.tar'"):
        train(folder, 'run', folder.parent / 'gone.tar')


def test_class_names_and_lists_come_from_the_pack(tmp_path):
    for split in ('train', 'val'):
        for name in ('ant', 'bee', 'cow'):
            noise(tmp_path / 'data' / split / name / '1.png', 0)
    packed = pack(tmp_path / 'data')
    options = dict(data_root=packed, num_classes=3)
    dataset = load(CONFIGS / 'imagenet/nf_resnet50.py', **options).train_dataloader.dataset
    assert dataset.metainfo.classes == ('ant', 'bee', 'cow')
    built = DATASETS.build(dict(dataset, _scope_='mmpretrain'))
    assert [built.get_data_info(i)['gt_label'] for i in range(3)] == [0, 1, 2]
    with pytest.raises(UserError, match="train' holds 3 class folders .ant, bee, cow., and the model has 4 classes"):
        run.check_data(load(CONFIGS / 'imagenet/nf_resnet50.py', **dict(options, num_classes=4)), ('train',))
    (tmp_path / 'data/meta').mkdir()
    (tmp_path / 'data/meta/train.txt').write_text('cow/1.png 2\nant/1.png 3\n')
    (tmp_path / 'data').rename(tmp_path / 'listed')
    cfg = load(CONFIGS / 'imagenet/nf_resnet50.py', data_root=pack(tmp_path / 'listed'), num_classes=4)
    run.check_data(cfg, ('train',))
    built = DATASETS.build(dict(cfg.train_dataloader.dataset, _scope_='mmpretrain'))
    assert [built.get_data_info(i)['gt_label'] for i in range(2)] == [2, 3]
    cfg = load(CONFIGS / 'imagenet/nf_resnet50.py', data_root=f'{tmp_path}/listed.tar', num_classes=3)
    with pytest.raises(UserError, match="line 2 of 'pack://.*/meta/train.txt', 'ant/1.png 3', ends in the label '3'"):
        run.check_data(cfg, ('train',))


def items(split_cfg):
    """Every item of a data set, from random numbers of its own."""
    dataset = Runner.build_dataloader(dict(split_cfg, num_workers=0, persistent_workers=False)).dataset
    for i in range(len(dataset)):
        np.random.seed(i)
        torch.manual_seed(i)
        yield dataset[i]


def same_items(files, packed):
    pairs = list(zip(items(files), items(packed), strict=True))
    assert pairs
    for one, other in pairs:
        assert torch.equal(one['inputs'], other['inputs']) and one['inputs'].float().std() > 1
        yield one['data_samples'], other['data_samples']


def test_a_detector_s_items_and_its_metric(tmp_path):
    pytest.importorskip('mmdet')
    folder = tmp_path / 'data'
    for split in ('train', 'val'):
        noise(folder / split / '1.png', 3, (64, 64))
        write_coco(folder, split, bbox=[8, 8, 40, 40], area=1600, segmentation=[[8, 8, 48, 8, 48, 48, 8, 48]])
    configs = [
        load(CONFIGS / 'finetune_mask_rcnn_nfnet_f0.py', data_root=root, num_classes=3)
        for root in (str(folder), pack(folder))
    ]
    for cfg in configs:
        run.check_data(cfg, ('train', 'val'))
    for split in ('train', 'val'):
        for one, other in same_items(*(cfg[f'{split}_dataloader'] for cfg in configs)):
            assert len(one.gt_instances) == 1
            assert torch.equal(one.gt_instances.bboxes.tensor, other.gt_instances.bboxes.tensor)
            assert (one.gt_instances.masks.masks == other.gt_instances.masks.masks).all()
    assert configs[1].val_evaluator.ann_file == f'pack://{folder}.tar/annotations/val.json'
    metric = METRICS.build(dict(configs[1].val_evaluator))
    assert metric._coco_api.dataset == json.loads((folder / 'annotations/val.json').read_text())


@pytest.mark.slow
def test_a_segmentor_s_items_with_and_without_lists(tmp_path):
    pytest.importorskip('mmseg')
    folder = tmp_path / 'own'
    voc = tmp_path / 'voc'
    for i, name in enumerate('abc'):
        for place in (folder / f'images/train/{name}.jpg', voc / f'JPEGImages/{name}.jpg'):
            noise(place, i, (540, 530))
        labels = np.random.default_rng(i).integers(0, 3, (540, 530), np.uint8)
        for place in (folder / 'annotations/train', voc / 'SegmentationClass', voc / 'SegmentationClassAug'):
            place.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(place / f'{name}.png'), labels)
    (voc / 'ImageSets/Segmentation').mkdir(parents=True)
    for name, lines in dict(train='a', aug='c\nb', val='b').items():
        (voc / f'ImageSets/Segmentation/{name}.txt').write_text(lines)
    for config, root, count in (('finetune_fcn_nfnet_f0', folder, 3), ('fcn_nf_resnet50_voc', voc, 3)):
        configs = [load(CONFIGS / f'{config}.py', data_root=path) for path in (str(root), pack(root))]
        for cfg in configs:
            run.check_data(cfg, ('train',))
        maps = list(same_items(*(cfg.train_dataloader for cfg in configs)))
        assert len(maps) == count
        assert all(torch.equal(one.gt_sem_seg.data, other.gt_sem_seg.data) for one, other in maps)


def test_the_command(folder, capsys):
    commands.main('pack', [str(folder), f'{folder}.tar'])
    assert capsys.readouterr().out == (
        f'20 files packed and read back: train with --cfg-options data_root={folder}.tar\n'
    )
    commands.main('pack', [f'{folder}.tar'])
    assert capsys.readouterr().out == f'{folder}.tar: 20 files, each as it was packed\n'
    with pytest.raises(SystemExit, match='2'):
        commands.main('pack', [str(folder), f'{folder}.tar'])
    assert capsys.readouterr().err == f"error: '{folder}.tar' exists: delete it first, or name another file\n"
