import json
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine import Config
from mmengine.optim import OptimWrapper
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import Runner

from nfnet_mm import run
from nfnet_mm.engine import AGCOptimWrapper

pytest.importorskip('mmdet')
pytest.importorskip('mmcv.ops')

FOLDER = Path(__file__).parents[1] / 'configs'
LEAVES = sorted(path for path in FOLDER.rglob('*.py') if '_base_' not in path.parts)
DETECTORS = sorted(FOLDER.glob('mask_rcnn_*.py'))
QUICK = ('nfnet_f0',)  # the others are slow tests
HEAD_ENDS = {
    'rpn_head.rpn_cls.weight',
    'rpn_head.rpn_reg.weight',
    'roi_head.bbox_head.fc_cls.weight',
    'roi_head.bbox_head.fc_reg.weight',
    'roi_head.mask_head.conv_logits.weight',
}


@pytest.mark.parametrize('path', LEAVES, ids=lambda path: str(path.relative_to(FOLDER)))
def test_builds_and_fits_together(path):
    cfg = Config.fromfile(path)
    init_default_scope(cfg.default_scope)
    with torch.device('meta'):  # without memory, the largest variants in a second
        model = MODELS.build(cfg.model)
    if cfg.model.get('neck', {}).get('type') == 'FPN':
        strides = model.backbone.out_strides
        assert tuple(model.neck.in_channels) == model.backbone.out_channels
        assert tuple(cfg.model.roi_head.bbox_roi_extractor.featmap_strides) == tuple(strides)
        anchors = cfg.model.rpn_head.anchor_generator.strides
        assert len(anchors) == model.neck.num_outs and anchors[:4] == list(strides)
    run.use_amp(cfg)  # raises for a wrapper without a mixed-precision form


@pytest.fixture(scope='module')
def coco(digits_root, tmp_path_factory):
    """The small digits dataset in the layout of COCO 2017, as pictures of its first ten categories."""
    from mmdet.datasets import CocoDataset

    root = tmp_path_factory.mktemp('coco')
    (root / 'annotations').mkdir()
    for split in ('train', 'val'):
        (root / f'{split}2017').symlink_to(digits_root / split)
        content = json.loads((digits_root / f'annotations/{split}.json').read_text())
        content['categories'] = [dict(id=i + 1, name=name) for i, name in enumerate(CocoDataset.METAINFO['classes'])]
        (root / f'annotations/instances_{split}2017.json').write_text(json.dumps(content))
    return root


def on_coco(path, coco, work_dir, **options):
    """The config with the small data in the place of COCO's, nothing else changed but ``options``."""
    cfg = run.load_config(str(path), options, str(work_dir))
    run.use_data_root(cfg, str(coco))
    cfg.experiment_name = work_dir.name
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        loader.update(num_workers=0, persistent_workers=False)
    return cfg


@pytest.mark.parametrize('path', DETECTORS, ids=lambda path: path.stem)
def test_coco_recipe_as_built(path, coco, tmp_path):
    """The paper's numbers, read from what mmengine built."""
    runner = Runner.from_cfg(on_coco(path, coco, tmp_path / path.stem))
    loop = runner.train_loop
    wrapper = runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
    schedulers = runner.build_param_scheduler(runner.param_schedulers)

    assert loop.max_iters == 22_500
    assert loop.dataloader.batch_size * wrapper._accumulative_counts == 256
    rates = []
    for _ in range(loop.max_iters):
        wrapper.optimizer._step_count = 1  # else the schedulers warn that nothing was trained between their steps
        rates.append(wrapper.get_lr()['lr'][0])
        for scheduler in schedulers:
            scheduler.step()
    assert rates[0] == pytest.approx(0.0032)
    assert np.all(np.diff(rates[:1000]) > 0) and rates[500] == pytest.approx(0.32 * (0.01 + 0.99 * 500 / 999))
    for first, last, rate in (
        (1000, 20_249, 0.32),
        (20_250, 21_374, 0.032),
        (21_375, 21_936, 0.0032),
        (21_937, 22_499, 0.00032),
    ):
        assert rates[first] == pytest.approx(rate) and rates[last] == pytest.approx(rate)

    optimizer = wrapper.optimizer
    assert type(optimizer).__name__ == 'SGD'
    assert optimizer.defaults['momentum'] == 0.9 and optimizer.defaults['nesterov']
    assert {(group['weight_decay'], min(p.dim() for p in group['params']) > 1) for group in optimizer.param_groups} == {
        (4e-5, True),
        (0.0, False),
    }
    # every stage is trained
    assert sum(len(group['params']) for group in optimizer.param_groups) == len(list(runner.model.parameters()))
    if '_bn_' in path.stem:
        assert type(wrapper) is OptimWrapper and runner.cfg.sync_bn == 'torch'
        runner.model.train()
        assert all(m.training for m in runner.model.backbone.modules())  # no frozen statistics
    else:
        assert type(wrapper) is AGCOptimWrapper and wrapper.agc == dict(clipping=0.01, eps=1e-3)
        names = {id(p): name for name, p in runner.model.named_parameters()}
        assert {names[id(p)] for p in wrapper.excluded} == HEAD_ENDS
        assert (runner.model.backbone.stages[-1][-1].drop_path_rate > 0.05) == ('nfnet' in path.stem)

    # The pixels that the public weights know: RGB, zero mean, unit deviation over ImageNet; padded to one size.
    preprocessor = runner.model.data_preprocessor
    colour = np.array([58, 116, 104], np.uint8)  # BGR
    batch = dict(inputs=[torch.from_numpy(np.tile(colour[:, None, None], (1, 64, 48)))], data_samples=None)
    pixels = preprocessor(batch, training=False)['inputs']
    expected = (np.array([104, 116, 58]) - [123.675, 116.28, 103.53]) / [58.395, 57.12, 57.375]
    np.testing.assert_allclose(pixels[0, :, 0, 0], expected, rtol=1e-5)


@pytest.mark.parametrize(
    'path',
    [
        pytest.param(path, id=path.stem, marks=() if any(name in path.stem for name in QUICK) else pytest.mark.slow)
        for path in DETECTORS
    ],
)
def test_trains_two_iterations_on_coco_and_validates(path, coco, tmp_path):
    cfg = on_coco(
        path,
        coco,
        tmp_path / path.stem,
        **{
            'train_cfg.total_batch': 2,
            'train_cfg.max_iters': 2,
            'train_cfg.val_interval': 2,
            'train_dataloader.batch_size': 1,
            'val_dataloader.dataset.indices': 2,
            'default_hooks.logger.interval': 1,
            'default_hooks.checkpoint.save_last': False,  # half a gigabyte
            'model.test_cfg.rcnn.score_thr': 0.0,
        },
    )  # it has learnt nothing yet, and is to find something
    cfg.model.backbone.pop('init_cfg', None)  # weights are not at hand here
    small = (128, 128)
    resize, crop = cfg.train_dataloader.dataset.pipeline[2:4]
    assert (resize.type, resize.scale, resize.ratio_range) == ('RandomResize', (1024, 1024), (0.1, 2.0))
    assert (crop.type, crop.crop_size) == ('RandomCrop', (1024, 1024))
    resize.scale = crop.crop_size = cfg.val_dataloader.dataset.pipeline[1].scale = small
    resize.ratio_range = (0.8, 1.25)  # 0.1 would leave no digit to learn from
    cfg.model.data_preprocessor.batch_augments[0].size = small
    runner = Runner.from_cfg(cfg)
    start = {name: p.detach().clone() for name, p in runner.model.named_parameters()}
    runner.train()
    assert runner.iter == 2 and runner.optim_wrapper._inner_count == 4
    moved = [name for name, p in runner.model.named_parameters() if not torch.equal(p, start[name])]
    assert {name.split('.')[0] for name in moved} == {'backbone', 'neck', 'rpn_head', 'roi_head'}
    scalars = runner.message_hub.log_scalars
    assert scalars['train/lr'].current() == pytest.approx(0.32 * 2 / 256 * (0.01 + 0.99 / 999))
    assert np.isfinite(scalars['train/loss'].current()) and 0 <= scalars['val/coco/segm_mAP'].current() <= 1
