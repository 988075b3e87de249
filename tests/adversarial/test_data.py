"""Everything that touches data, losses or figures, put through odd pictures and samples.

A new transform is a row of ``TRANSFORMS``, a new loss or metric a row of ``POOLED``.
"""

import copy
import pickle

import numpy as np
import pytest
import torch
from mmengine.registry import FUNCTIONS, METRICS, MODELS
from mmengine.registry import TRANSFORMS as ROOT_TRANSFORMS

pytestmark = pytest.mark.slow

# transform: (config, keys beside the image that move with its pixels)
TRANSFORMS = {
    'NFRandAugment': (dict(type='nfnet_mm.NFRandAugment', magnitude=10), ()),
    'RandomResizedCrop': (dict(type='nfnet_mm.RandomResizedCrop', scale=9), ()),
    'ResizeCrop32': (dict(type='nfnet_mm.ResizeCrop32', size=9), ()),
    'CropResize': (dict(type='nfnet_mm.CropResize', size=9), ()),
    'RandomScale': (dict(type='nfnet_mm.RandomScale'), ('gt_seg_map',)),
    'CenterCropPad': (dict(type='nfnet_mm.CenterCropPad', size=(9, 11)), ('gt_seg_map',)),
    'DownsampleCrop': (dict(type='nfnet_mm.DownsampleCrop', scale=(12, 9), size=(10, 8)), ('gt_depth_map',)),
    'DepthColorJitter': (dict(type='nfnet_mm.DepthColorJitter'), ()),
}
_CLASSIFICATION = ('NFRandAugment', 'RandomResizedCrop', 'ResizeCrop32', 'CropResize', 'mixing_collate', 'NFClsHead')
PACKAGES = dict.fromkeys(_CLASSIFICATION, 'mmpretrain')
FLOATS = ('ResizeCrop32', 'CropResize')  # what overshoots in resizing is kept
SIZES = [(1, 1), (1, 7), (7, 1), (2, 3), (31, 20), (48, 64)]


def built(name):
    pytest.importorskip(PACKAGES.get(name, 'mmseg'))
    return ROOT_TRANSFORMS.build(TRANSFORMS[name][0])


def picture(size, channels=3):
    random = np.random.default_rng(0)
    return dict(
        img=random.integers(0, 256, (*size, channels), dtype=np.uint8),
        img_shape=size,
        ori_shape=size,
        gt_seg_map=random.integers(0, 3, size, dtype=np.uint8),
        gt_depth_map=random.uniform(0.5, 9, size).astype(np.float32),
    )


def applied(transform, results, seed=0):
    np.random.seed(seed)
    torch.manual_seed(seed)
    return transform(results)


over_all = pytest.mark.parametrize('name', TRANSFORMS)
sizes = pytest.mark.parametrize('size', SIZES, ids=lambda size: f'{size[0]}x{size[1]}')


@over_all
@sizes
def test_pictures_of_all_sizes_stay_pictures(name, size):
    transform = built(name)
    for seed in range(8):
        out = applied(transform, picture(size), seed)
        assert (
            out['img'].dtype == (np.float32 if name in FLOATS else np.uint8)
            and out['img'].ndim == 3
            and out['img'].shape[2] == 3
        )
        assert min(out['img'].shape) > 0
        for key in TRANSFORMS[name][1]:
            assert out[key].shape[:2] == out['img'].shape[:2], key


@over_all
def test_the_same_seed_gives_the_same_picture_in_another_process_s_copy_too(name):
    transform = built(name)
    for seed in range(5):
        outs = [
            applied(t, picture((31, 20)), seed)['img']
            for t in (transform, pickle.loads(pickle.dumps(transform)), built(name))
        ]
        assert np.array_equal(outs[0], outs[1]) and np.array_equal(outs[0], outs[2])


@over_all
def test_the_loaded_arrays_are_left_as_they_were(name):
    """Datasets that cache their pictures would otherwise augment them twice."""
    transform = built(name)
    for seed in range(8):
        original = picture((31, 20))
        before = copy.deepcopy(original)
        applied(transform, dict(original), seed)
        for key, value in before.items():
            assert np.array_equal(original[key], value), key


@over_all
def test_views_and_read_only_arrays(name):
    transform = built(name)
    for seed in range(8):
        reference = applied(transform, picture((31, 20)), seed)['img']
        results = picture((31, 20))
        wide = np.zeros((31, 40, 3), np.uint8)
        wide[:, ::2] = results['img']
        flipped = np.ascontiguousarray(results['img'][:, ::-1])[:, ::-1]
        locked = results['img'].copy()
        locked.setflags(write=False)
        for view in (wide[:, ::2], flipped, locked):
            assert np.array_equal(applied(transform, dict(results, img=view), seed)['img'], reference)


@over_all
def test_other_keys_pass_untouched(name):
    marked = dict(picture((31, 20)), img_path='a.png', sample_idx=3, anything=object())
    out = applied(built(name), dict(marked))
    assert all(out[key] is marked[key] for key in ('img_path', 'sample_idx', 'anything'))


@pytest.mark.parametrize('images', [1, 2, 3, 5])
@sizes
def test_mixing_of_all_batches(images, size):
    pytest.importorskip('mmpretrain')
    from mmpretrain.structures import DataSample

    batch = [
        dict(
            inputs=torch.from_numpy(picture(size)['img']).permute(2, 0, 1).clone(),
            data_samples=DataSample().set_gt_label(i),
        )
        for i in range(images)
    ]
    before = copy.deepcopy(batch)
    mix = FUNCTIONS.get('nfnet_mm.mixing_collate')
    for randaugment in (None, dict(magnitude=5)):
        np.random.seed(0)
        out = mix(batch, num_classes=5, randaugment=randaugment)
        dtype = torch.float32 if randaugment is None else torch.uint8
        assert out['inputs'].shape == ((images + 1) // 2, 3, *size) and out['inputs'].dtype == dtype
        for sample in out['data_samples']:
            assert float(sample.gt_score.sum()) == pytest.approx(1)
    for one, other in zip(batch, before):
        assert torch.equal(one['inputs'], other['inputs']) and int(one['data_samples'].gt_label) == int(
            other['data_samples'].gt_label
        )


def berhu_by_hand(pred, target):
    errors = [float(p) - float(t) for p, t in zip(pred.flatten(), target.flatten()) if np.isfinite(float(t)) and t > 0]
    if not errors:
        return 0.0
    c = 0.2 * max(map(abs, errors))
    return sum(abs(e) if abs(e) <= c else (e * e + c * c) / (2 * c) for e in errors) / len(errors)


def depth_by_hand(pred, target):
    pairs = [
        (min(max(float(p), 1e-3), 10), float(t))
        for p, t in zip(pred.flatten(), target.flatten())
        if 1e-3 <= float(t) <= 10
    ]
    return 100 * sum(max(p / t, t / p) < 1.25 for p, t in pairs) / len(pairs)


DEPTHS = {
    'many': (torch.rand(2, 1, 5, 6) * 9, torch.rand(2, 1, 5, 6) * 9),
    'one pixel': (torch.full((1, 1, 1, 1), 2.0), torch.full((1, 1, 1, 1), 3.0)),
    'holes': (torch.rand(2, 1, 5, 6) * 9, torch.rand(2, 1, 5, 6) * (torch.rand(2, 1, 5, 6) > 0.5) * 9),
    'broken sensor': (
        torch.tensor([[[[1.0, 2.0, 3.0, 4.0]]]]),
        torch.tensor([[[[1.5, float('nan'), float('inf'), 0.0]]]]),
    ),
    'exact': (torch.ones(1, 1, 2, 2), torch.ones(1, 1, 2, 2)),
    'half precision': (torch.rand(2, 1, 5, 6).bfloat16() * 9, torch.rand(2, 1, 5, 6) * 9),
    'a prediction of zero': (torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 2, 2)),
}


@pytest.mark.parametrize('case', DEPTHS)
def test_depth_loss_and_metric_by_hand(case):
    pytest.importorskip('mmseg')
    pred, target = (t.clone() for t in DEPTHS[case])
    pred.requires_grad_()
    loss = MODELS.build(dict(type='nfnet_mm.BerHuLoss'))(pred, target)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(berhu_by_hand(pred.detach(), target), rel=1e-4, abs=1e-6)
    assert pred.grad.isfinite().all()
    assert not pred.grad[~(target.isfinite() & (target > 0))].any()
    metric = METRICS.build(dict(type='nfnet_mm.PixelDepthMetric'))
    metric.process(
        {}, [dict(pred_depth_map=dict(data=p), gt_depth_map=dict(data=t)) for p, t in zip(pred.detach(), target)]
    )
    assert metric.compute_metrics(metric.results)['delta1'] == pytest.approx(depth_by_hand(pred.detach(), target))


HEADS = {
    'NFClsHead': (dict(type='nfnet_mm.NFClsHead', num_classes=5, in_channels=8, dropout=0.5), (8,)),
    'UpProjectionHead': (dict(type='nfnet_mm.UpProjectionHead', in_channels=8, channels=16), (8, 3, 2)),
}


@pytest.mark.parametrize('name', HEADS)
@pytest.mark.parametrize('samples', [1, 4])
@pytest.mark.parametrize('half', [False, True])
def test_heads_alone_and_in_a_batch(name, samples, half):
    pytest.importorskip(PACKAGES.get(name, 'mmseg'))
    torch.manual_seed(0)
    config, feature = HEADS[name]
    head = MODELS.build(config).eval()
    x = torch.randn(samples, *feature)
    with torch.autocast('cpu', torch.bfloat16, enabled=half):
        whole = head((x,))
        alone = torch.cat([head((x[i : i + 1],)) for i in range(samples)])
    torch.testing.assert_close(whole, alone, rtol=2e-2 if half else 1e-5, atol=2e-2 if half else 1e-6)


def test_depth_frames_are_told_apart_by_their_names(tmp_path):
    """Each image is either labelled or raw, whatever else there is in its name and folder; test images are labelled."""
    pytest.importorskip('mmseg')
    cv2 = pytest.importorskip('cv2')
    names = ['nyu_0003', 'nyu_00031', 'nyu_003', 'my nyu_0004', 'nyu_0005_b', 'NYU_0006', 'bath.room_0001', 'kitchen']
    for kind, suffix, array in (
        ('images', 'jpg', np.zeros((4, 4, 3), np.uint8)),
        ('annotations', 'png', np.full((4, 4), 2000, np.uint16)),
    ):
        for folder in ('train', 'train/scene'):
            (tmp_path / kind / folder).mkdir(parents=True, exist_ok=True)
            for name in names:
                cv2.imwrite(str(tmp_path / kind / folder / f'{name}.{suffix}'), array)
    from mmengine.registry import DATASETS, init_default_scope

    init_default_scope('mmseg')
    pipeline = [dict(type='LoadDepthAnnotation', depth_rescale_factor=1e-3)]
    prefix = dict(img_path='images/train', depth_map_path='annotations/train')
    found = {}
    for frames in ('raw', 'labelled', 'test'):
        cfg = dict(type='nfnet_mm.NYUDepthDataset', data_root=str(tmp_path), data_prefix=prefix, pipeline=pipeline)
        dataset = DATASETS.build(dict(cfg, frames=frames))
        found[frames] = sorted(dataset.get_data_info(i)['img_path'] for i in range(len(dataset)))
    whole = sorted(map(str, (tmp_path / 'images').rglob('*.jpg')))
    assert sorted(found['raw'] + found['labelled']) == whole and len(whole) == 16
    assert found['test'] == found['labelled'] == [path for path in whole if path.endswith('/nyu_0003.jpg')]
