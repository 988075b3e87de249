"""The training crop and the test views: against the authors' arrays, by hand, and up to the network."""

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.dataset import Compose, default_collate
from mmengine.registry import MODELS, TRANSFORMS, init_default_scope

from nfnet_mm.tasks.classification import RandomResizedCrop, ResizeCrop32, views


@pytest.fixture(scope='module')
def released():
    """Two pictures, and the authors' views of them: ``view|<name>|<size>|<picture>``."""
    return dict(np.load(Path(__file__).parents[1] / 'data' / 'augment_ops.npz'))


@pytest.fixture
def img():
    return np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8)


@pytest.mark.parametrize('picture', [0, 1])
@pytest.mark.parametrize('size', [64, 192])
@pytest.mark.parametrize('name, kind', [('resize_crop_32', 'ResizeCrop32'), ('crop_resize', 'CropResize')])
def test_views_are_the_released_ones(released, name, kind, size, picture):
    img, theirs = released[f'image|{picture}'], released[f'view|{name}|{size}|{picture}']
    ours = getattr(views, name)(img, size)
    assert ours.dtype == np.float32 and np.abs(ours - theirs).max() < 1e-3
    results = TRANSFORMS.build(dict(type=f'nfnet_mm.{kind}', size=size))(dict(img=img))
    assert np.array_equal(results['img'], ours) and results['img_shape'] == (size, size)


def cubic(distance):
    """Keys' kernel, a = -0.5."""
    t = abs(distance)
    return 1.5 * t**3 - 2.5 * t**2 + 1 if t < 1 else -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2 if t < 2 else 0


def resized_by_hand(row, after):
    """One side; pixels outside count for nothing."""
    out = []
    for i in range(after):
        centre = (i + 0.5) * len(row) / after - 0.5
        weights = [cubic(centre - j) for j in range(len(row))]
        out.append(np.dot(weights, row) / sum(weights))
    return np.array(out)


@pytest.mark.parametrize('after', [1, 63, 64, 65, 192])
def test_rows_that_are_resized_some_at_a_time_are_those_of_all_at_once(after):
    """Every bit, of a crop that is a view into a picture, and of the floats that the second side has."""
    whole = np.random.default_rng(1).integers(0, 256, (300, 170, 3), np.uint8)
    for img in (whole[3:250, 5:-7], whole.astype(np.float32) / 7):
        indices, weights = views._taps(img.shape[0], after)
        rows = np.ascontiguousarray(img).reshape(img.shape[0], -1).astype(np.float32)[indices]
        at_once = np.matmul(weights[:, None], rows).reshape(after, *img.shape[1:])
        assert np.array_equal(views._resize_rows(img, after), at_once)


@pytest.mark.parametrize('height, width', [(50, 70), (100, 33), (7, 200), (1, 1)])
def test_resize_by_hand(img, height, width):
    """The kernel is looked up in 1024 steps: a slope of up to 255 x 1.5 over half a step, on both sides."""
    by_hand = np.apply_along_axis(resized_by_hand, 0, img.astype(float), height)
    by_hand = np.apply_along_axis(resized_by_hand, 1, by_hand, width)
    ours = views.resize_bicubic(img, height, width)
    assert ours.dtype == np.float32 and np.abs(ours - by_hand).max() < 0.5
    if (height, width) == (50, 70):
        assert np.array_equal(ours, img)


def test_nothing_is_clipped_but_what_is_mixed(img):
    high = (img > 127).astype(np.uint8) * 255
    crops = []
    for clip in (False, True):
        np.random.seed(0)
        crops.append(RandomResizedCrop(40, clip=clip, crop_ratio_range=(0.5, 0.5))(dict(img=high))['img'])
    assert crops[0].dtype == np.float32 and crops[0].min() < -1 and crops[0].max() > 256
    assert crops[1].dtype == np.uint8 and np.array_equal(crops[1], np.floor(crops[0].clip(0, 255)))


def test_the_crop_is_mmpretrains(img):
    crop = RandomResizedCrop((20, 30))
    np.random.seed(0)
    out = crop(dict(img=img))
    np.random.seed(0)
    top, left, height, width = crop.rand_crop_params(img)
    expected = views.resize_bicubic(img[top : top + height, left : left + width], 20, 30)
    assert out['img_shape'] == (20, 30) and np.array_equal(out['img'], expected.clip(0, 255).astype(np.uint8))


def test_floats_reach_the_network_normalised_once_in_rgb(img):
    """Through the frameworks' packing, collating and preprocessing."""
    init_default_scope('mmpretrain')
    high = (img > 127).astype(np.uint8) * 255
    pipeline = Compose([dict(type='nfnet_mm.ResizeCrop32', size=32), dict(type='PackInputs')])
    mean, std = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
    preprocessor = MODELS.build(dict(type='ClsDataPreprocessor', mean=mean, std=std, to_rgb=True))
    batch = default_collate([pipeline(dict(img=high, gt_label=0))])
    assert batch['inputs'].dtype == torch.float32
    view = views.resize_crop_32(high, 32)
    assert view.min() < 0 and view.max() > 255
    expected = (view[..., ::-1] - mean) / std
    inputs = preprocessor(batch)['inputs'][0].permute(1, 2, 0).numpy()
    assert np.abs(inputs - expected).max() < 1e-5


@pytest.mark.parametrize('size', [0, -1, 2.5, '64', None])
def test_bad_size(size):
    with pytest.raises(ValueError, match='size=.* must be a positive integer'):
        ResizeCrop32(size)


@pytest.mark.parametrize('kind', ['RandomResizedCrop', 'ResizeCrop32', 'CropResize'])
def test_bad_image(kind):
    transform = TRANSFORMS.build({'type': f'nfnet_mm.{kind}', 'scale' if 'Random' in kind else 'size': 8})
    with pytest.raises(ValueError, match=rf'{kind} takes images .* of at most 4 channels, got uint8 \(4, 4, 5\)'):
        transform(dict(img=np.zeros((4, 4, 5), np.uint8)))


@pytest.mark.parametrize('kind', ['RandomResizedCrop', 'ResizeCrop32', 'CropResize'])
def test_grey_is_seen_as_each_channel_is(kind):
    transform = TRANSFORMS.build({'type': f'nfnet_mm.{kind}', 'scale' if 'Random' in kind else 'size': 8})
    colour = np.random.default_rng(0).integers(0, 256, (13, 17, 3), dtype=np.uint8)
    views = []
    for img in (colour, colour[..., 1], colour[..., 1:2]):
        np.random.seed(0)
        random.seed(0)
        views.append(transform(dict(img=img))['img'])
    assert [view.shape for view in views] == [(8, 8, 3), (8, 8), (8, 8, 1)]
    np.testing.assert_allclose(views[1], views[0][..., 1], rtol=1e-6)
    np.testing.assert_allclose(views[2], views[0][..., 1:2], rtol=1e-6)
