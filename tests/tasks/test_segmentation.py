"""FCN on Pascal VOC (NF-ResNets, Appendix H.1): transforms, recipe, and a run on the real layout."""

from pathlib import Path

import mmcv
import numpy as np
import pytest
import torch
from mmengine import Config
from mmengine.runner import Runner

from nfnet_mm.tasks.segmentation import CenterCropPad, RandomScale

CONFIGS = Path(__file__).parents[2] / 'configs'
LEAVES = sorted(CONFIGS.glob('fcn_*_voc.py'))


@pytest.mark.parametrize('shape', [(5, 5), (9, 4), (4, 9), (3, 2), (12, 11)])
def test_center_crop_pad_keeps_the_centre_pixels(shape):
    size, generator = (5, 6), np.random.default_rng(0)
    image = generator.integers(1, 255, (*shape, 3), dtype=np.uint8)
    labels = generator.integers(0, 21, shape, dtype=np.uint8)
    out = CenterCropPad(size, fill=(1.2, 2.6, 3))(dict(img=image, gt_seg_map=labels))
    assert out['img'].shape == (5, 6, 3)
    assert out['ori_shape'] == out['img_shape'] == size
    # pixel by pixel: where output (i, j) comes from
    for i in range(size[0]):
        for j in range(size[1]):
            y = i + (shape[0] - size[0]) // 2 if shape[0] > size[0] else i - (size[0] - shape[0]) // 2
            x = j + (shape[1] - size[1]) // 2 if shape[1] > size[1] else j - (size[1] - shape[1]) // 2
            if 0 <= y < shape[0] and 0 <= x < shape[1]:
                assert (out['img'][i, j] == image[y, x]).all() and out['gt_seg_map'][i, j] == labels[y, x]
            else:
                assert out['img'][i, j].tolist() == [1, 3, 3] and out['gt_seg_map'][i, j] == 255


def test_random_scale_is_relative_to_the_image():
    image = np.arange(12 * 8, dtype=np.uint8).reshape(12, 8)
    out = RandomScale((0.5, 0.5))(dict(img=np.stack([image] * 3, 2), gt_seg_map=image))
    assert out['img'].shape == (6, 4, 3) and out['img_shape'] == (6, 4)
    assert (out['gt_seg_map'] == image[::2, ::2]).all()
    np.random.seed(0)
    factors = [RandomScale()(dict(img=np.zeros((100, 100, 3), np.uint8)))['img'].shape[0] / 100 for _ in range(400)]
    assert 0.5 <= min(factors) < 0.52 and 1.97 < max(factors) <= 2.0
    assert np.mean(factors) == pytest.approx(1.25, abs=0.05)


@pytest.mark.parametrize(
    'build, message',
    [
        (lambda: CenterCropPad(0), 'size=0 must be a positive integer'),
        (lambda: RandomScale((2, 1)), r'scales=\(2, 1\) must be two positive numbers, the lower first'),
    ],
)
def test_bad_arguments(build, message):
    with pytest.raises(ValueError, match=message):
        build()


@pytest.fixture(scope='module')
def voc(tmp_path_factory):
    """Six images of different sizes in the layout of VOCdevkit, with an ignored border; two for each list."""
    root, generator = tmp_path_factory.mktemp('voc') / 'VOC2012', np.random.default_rng(0)
    names = {'train': ['a', 'b'], 'aug': ['c', 'd'], 'val': ['e', 'f']}
    for split, stems in names.items():
        (root / 'ImageSets/Segmentation').mkdir(parents=True, exist_ok=True)
        (root / f'ImageSets/Segmentation/{split}.txt').write_text('\n'.join(stems) + '\n')
        for i, stem in enumerate(stems):
            height, width = (60, 90) if i else (101, 76)
            labels = np.full((height, width), 255, np.uint8)
            labels[2:-2, 2:-2] = generator.integers(0, 21)
            image = generator.integers(0, 255, (height, width, 3), dtype=np.uint8)
            mmcv.imwrite(image, str(root / f'JPEGImages/{stem}.jpg'))
            mmcv.imwrite(labels, str(root / f'SegmentationClass{"Aug" if split == "aug" else ""}/{stem}.png'))
    return root


def runner_on(voc, path, work_dir, size=None, **options):
    cfg = Config.fromfile(path)
    cfg.work_dir, cfg.experiment_name = str(work_dir), work_dir.name
    datasets = [*cfg.train_dataloader.dataset.datasets, cfg.val_dataloader.dataset, cfg.test_dataloader.dataset]
    for dataset in datasets:
        dataset.data_root = str(voc)
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        loader.update(num_workers=0, persistent_workers=False)
    if size:
        cfg.model.data_preprocessor.size = (size, size)
        for dataset in datasets[:2]:
            dataset.pipeline[3].crop_size = (size, size)
        for dataset in datasets[2:]:
            dataset.pipeline[2].size = (size, size)
    cfg.merge_from_dict(options)
    return Runner.from_cfg(cfg)


@pytest.mark.parametrize(
    'path', [pytest.param(p, id=p.stem, marks=() if 'nf_resnet50' in p.name else pytest.mark.slow) for p in LEAVES]
)
def test_trains_two_steps_and_validates(voc, path, tmp_path):
    runner = runner_on(
        voc,
        path,
        tmp_path / path.stem,
        size=65,
        **{
            'train_cfg.max_iters': 2,
            'train_cfg.val_interval': 2,
            'train_cfg.total_batch': 4,
            'train_dataloader.batch_size': 2,
        },
    )
    runner.train()
    scalars = runner.message_hub.log_scalars
    assert np.isfinite(scalars['train/loss'].current())
    assert 0 <= scalars['val/mIoU'].current() <= 100
    runner.model.eval()
    with torch.no_grad():  # stride 16: the last stage is dilated instead
        assert runner.model.backbone(torch.zeros(1, 3, 65, 65))[0].shape[-2:] == (5, 5)


def test_predictions_lie_on_the_crops_pixels(voc, tmp_path):
    runner = runner_on(voc, CONFIGS / 'fcn_nf_resnet50_voc.py', tmp_path / 'crop', size=65)
    loader = runner.build_dataloader(runner._val_dataloader)
    for batch in loader:
        labels = batch['data_samples'][0].gt_sem_seg.data
        prediction = runner.model.val_step(batch)[0].pred_sem_seg.data
        assert prediction.shape == labels.shape == (1, 65, 65)


@pytest.mark.parametrize('path', LEAVES, ids=lambda p: p.stem)
def test_recipe_as_built(voc, path, tmp_path):
    runner = runner_on(voc, path, tmp_path / path.stem)
    loop = runner._train_loop = runner.build_train_loop(runner._train_loop)
    wrapper = runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
    milestones = runner.build_param_scheduler(runner.param_schedulers)[0].milestones
    assert (loop.max_iters, loop.dataloader.batch_size * wrapper._accumulative_counts) == (30_000, 16)
    assert sorted(milestones) == [21_000, 27_000]
    assert wrapper.optimizer.defaults['lr'] == 0.003 and wrapper.optimizer.defaults['nesterov']
    assert {(g['weight_decay'], min(p.dim() for p in g['params']) > 1) for g in wrapper.optimizer.param_groups} == {
        (5e-5, True),
        (0.0, False),
    }
    head = runner.model.decode_head
    dilations = [m.dilation for m in head.modules() if isinstance(m, torch.nn.Conv2d)]
    assert dilations == [(1, 1), (6, 6), (6, 6)]  # the classifier's conv is made first
    assert head.dropout is None and getattr(runner.model.backbone, 'drop_path_rate', 0) == 0
