"""The NYU configs: they build, hold the recipe, and train and validate on data in the real layout."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

pytest.importorskip('mmseg')
pytest.importorskip('mmpretrain')

from mmengine import Config
from mmengine.registry import DATASETS, MODELS, init_default_scope
from mmengine.runner import Runner

CONFIGS = Path(__file__).parents[2] / 'configs'
NAMES = [f'depth_{kind}_resnet{depth}_nyu' for kind in ('nf', 'bn') for depth in (50, 101, 152, 200)]
BLOCKS = {50: [3, 4, 6, 3], 101: [3, 4, 23, 3], 152: [3, 8, 36, 3], 200: [3, 24, 36, 3]}


# As mmseg's converter names frames and test images, and as tools/prepare_nyu.py does.
LAYOUTS = {
    'raw': dict(
        train=('bathroom_0030_00012', 'bathroom_0030_00102', 'cafe_0001a_00007'), test=('cafe_00045', 'cafe_00050')
    ),
    'labelled': dict(train=('nyu_0003', 'nyu_0004', 'nyu_0005'), test=('nyu_0001', 'nyu_0002')),
}


@pytest.fixture(scope='module')
def roots(tmp_path_factory):
    """Three training and two test images of 640 x 480 in each layout."""
    rng, roots = np.random.default_rng(0), {}
    depth = np.tile(np.linspace(700, 9990, 640).astype(np.uint16), (480, 1))
    for layout, splits in LAYOUTS.items():
        root = roots[layout] = tmp_path_factory.mktemp(layout) / 'nyu'
        for split, names in splits.items():
            for kind in ('images', 'annotations'):
                (root / kind / split).mkdir(parents=True)
            for name in names:
                image = rng.integers(0, 256, (480, 640, 3), dtype=np.uint8)
                cv2.imwrite(str(root / f'images/{split}/{name}.jpg'), image)
                cv2.imwrite(str(root / f'annotations/{split}/{name}.png'), depth)
    return roots


@pytest.fixture
def nyu(roots):
    return roots['raw']


def load(name, nyu, work_dir, small=True):
    """The config on that data, its loaders in this process and (``small``) its model made small."""
    cfg = Config.fromfile(CONFIGS / f'{name}.py')
    cfg.work_dir = str(work_dir)
    cfg.env_cfg.cudnn_benchmark = False
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        loader.update(num_workers=0, persistent_workers=False)
        loader.dataset.data_root = str(nyu)
    if small:
        cfg.model.backbone.pop('depth')
        cfg.model.backbone.arch = dict(depths=(1, 1, 1, 1), widths=(32, 32, 32, 64))
        cfg.model.decode_head.update(in_channels=64, channels=32)
    return cfg


@pytest.mark.parametrize('name', NAMES)
def test_models(name):
    cfg = Config.fromfile(CONFIGS / f'{name}.py')
    init_default_scope(cfg.default_scope)
    with torch.device('meta'):
        model = MODELS.build(cfg.model)
    depth = int(name.split('resnet')[1].split('_')[0])
    norms = [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert [len(stage) for stage in model.backbone.stages] == BLOCKS[depth]
    assert model.backbone.out_channels == (2048,)
    in_head = [m for m in model.decode_head.modules() if m in norms]
    # of the backbone: three in each block, and the last
    assert (len(norms) - len(in_head), len(in_head)) == (
        (0, 0) if '_nf_' in name else (3 * sum(BLOCKS[depth]) + 1, 1 + 4 * 2)
    )
    assert model.decode_head.in_channels == 2048 and len(model.decode_head.blocks) == 4
    assert sum(1 for line in (CONFIGS / f'{name}.py').read_text().splitlines()) <= 30


@pytest.mark.parametrize('name', ['depth_nf_resnet50_nyu', 'depth_bn_resnet200_nyu'])
def test_recipe_of_the_built_runner(name, nyu, tmp_path):
    runner = Runner.from_cfg(load(name, nyu, tmp_path))
    loop = runner.train_loop
    runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
    runner.param_schedulers = runner.build_param_scheduler(runner.param_schedulers)
    assert loop.dataloader.batch_size * loop.accumulation == 256 and loop.max_iters == 7500
    assert runner.optim_wrapper._accumulative_counts == loop.accumulation
    optimizer = runner.optim_wrapper.optimizer
    assert type(optimizer) is torch.optim.SGD
    assert sum(len(group['params']) for group in optimizer.param_groups) == len(list(runner.model.parameters()))
    agc = dict(clipping=0.04, eps=1e-3) if '_nf_' in name else None
    assert getattr(runner.optim_wrapper, 'agc', None) == agc
    rates = []
    for _ in range(7500):
        group = optimizer.param_groups[0]
        rates.append(group['lr'])
        optimizer.step()
        for scheduler in runner.param_schedulers:
            scheduler.step()
    assert group['momentum'] == 0.9 and group['nesterov'] and group['weight_decay'] == 0
    expected = 0.08 * (1 + np.cos(np.pi * np.arange(7500) / 7500))
    assert rates[0] == 0.16 and np.allclose(rates, expected, rtol=1e-4, atol=1e-9)
    assert abs(optimizer.param_groups[0]['lr']) < 1e-7


def test_data_of_the_config(nyu, tmp_path):
    cfg = load('depth_nf_resnet50_nyu', nyu, tmp_path)
    init_default_scope('mmseg')
    train, test = (DATASETS.build(loader.dataset) for loader in (cfg.train_dataloader, cfg.test_dataloader))
    assert len(train) == 3 and len(test) == 2
    sample = train[0]
    assert sample['inputs'].shape == (3, 228, 304) and sample['data_samples'].gt_depth_map.shape == (228, 304)
    depth = sample['data_samples'].gt_depth_map.data
    assert 0.7 < depth.min() < 1.1 and 9.5 < depth.max() < 9.99  # metres
    # flipped in half of the draws: the ramp then falls along a row
    flips = [train[0]['data_samples'].gt_depth_map.data[0, 0].diff()[0] < 0 for _ in range(40)]
    assert 8 < sum(flips) < 32
    sample = test[0]
    assert sample['inputs'].shape == (3, 228, 304) and sample['data_samples'].gt_depth_map.shape == (456, 608)
    assert sample['data_samples'].ori_shape == (456, 608)
    # the network gets RGB in this normalization
    model = MODELS.build(cfg.model)
    out = model.data_preprocessor(
        dict(inputs=[torch.full((3, 228, 304), 128).byte()], data_samples=[train[0]['data_samples']]), training=True
    )['inputs']
    assert torch.allclose(
        out[0, :, 0, 0], (128 - torch.tensor([123.675, 116.28, 103.53])) / torch.tensor([58.395, 57.12, 57.375])
    )


@pytest.mark.parametrize('name', NAMES)
def test_one_option_chooses_the_training_set(name, roots, tmp_path):
    cfg = load(name, roots['labelled'], tmp_path)
    assert cfg.train_dataloader.dataset.frames == 'raw'
    cfg.merge_from_dict({'train_dataloader.dataset.frames': 'labelled'})
    init_default_scope('mmseg')
    train, test = (DATASETS.build(loader.dataset) for loader in (cfg.train_dataloader, cfg.test_dataloader))
    for dataset, split in ((train, 'train'), (test, 'test')):
        names = [Path(dataset.get_data_info(i)['img_path']).stem for i in range(len(dataset))]
        assert tuple(names) == LAYOUTS['labelled'][split]


def test_train_says_how_to_get_the_raw_frames(roots, tmp_path, run_tool):
    args = ('train', CONFIGS / 'depth_bn_resnet50_nyu.py', '--work-dir', tmp_path, '--cfg-options')
    options = ('train_dataloader.num_workers=0', 'train_dataloader.persistent_workers=False')
    for root, match in (
        (tmp_path / 'nowhere', f"data folder '{tmp_path}/nowhere/' does not exist"),
        (roots['labelled'], "holds 3 .jpg images, none for frames='raw'"),
    ):
        code, message = run_tool(*args, *options, f'data_root={root}')
        error = message.splitlines()[-1]
        assert code == 2 and error.startswith('error: ') and match in error and 'docs/depth.md' in error
    assert error.endswith('train_dataloader.dataset.frames=labelled')


@pytest.mark.parametrize(
    'name, layout',
    [('depth_nf_resnet50_nyu', 'raw'), ('depth_nf_resnet50_nyu', 'labelled'), ('depth_bn_resnet50_nyu', 'raw')],
)
def test_two_steps_and_validation(name, layout, roots, tmp_path):
    cfg = load(name, roots[layout], tmp_path)
    cfg.train_dataloader.dataset.frames = layout
    cfg.train_dataloader.batch_size, cfg.val_dataloader.batch_size = 2, 2
    cfg.train_cfg.update(max_iters=2, total_batch=4, val_interval=2)
    cfg.default_hooks.checkpoint.interval = 2
    runner = Runner.from_cfg(cfg)
    before = {key: value.clone() for key, value in runner.model.named_parameters()}
    runner.train()
    assert runner.optim_wrapper.optimizer.param_groups[0]['initial_lr'] == pytest.approx(0.16 * 4 / 256)
    for key in (next(iter(before)), 'decode_head.reduce.weight', 'decode_head.conv_seg.bias'):
        assert not torch.equal(runner.model.get_parameter(key), before[key]), key
    metrics = {
        key: runner.message_hub.get_scalar(f'val/{key}').current()
        for key in ('delta1', 'delta2', 'delta3', 'rms', 'rel')
    }
    assert all(np.isfinite(value) for value in metrics.values())
    assert 0 <= metrics['delta1'] <= metrics['delta2'] <= metrics['delta3'] <= 100
    assert list(Path(cfg.work_dir).glob('best_delta1_*.pth')) and (Path(cfg.work_dir) / 'iter_2.pth').exists()
