"""NYU: the preparation tool, the transforms and the metric, on small data in the real formats."""

import math
import os

import cv2
import numpy as np
import pytest
import torch

pytest.importorskip('mmseg')
h5py = pytest.importorskip('h5py')
savemat = pytest.importorskip('scipy.io').savemat

from nfnet_mm.run import UserError  # noqa: E402
from nfnet_mm.tasks.depth import DepthColorJitter, DownsampleCrop, PixelDepthMetric  # noqa: E402
from nfnet_mm.tasks.depth.prepare import depth_to_millimetres, prepare_nyu, read_splits  # noqa: E402
from nfnet_mm.tasks.depth.transforms import jitter_color  # noqa: E402


def write_mat(path, count, height=12, width=16):
    """A labelled file as MATLAB writes it: HDF5 behind a user block of 512 bytes, the axes reversed."""
    rng = np.random.default_rng(0)
    # smooth, so that JPEG keeps them
    ramp = np.linspace(0, 200, width, dtype=np.uint8)[None, None, :, None]
    images = np.broadcast_to(ramp, (count, 3, width, height)) + rng.integers(0, 50, (count, 3, 1, 1), dtype=np.uint8)
    depths = rng.uniform(0.7, 9.99, (count, width, height)).astype(np.float32)
    with h5py.File(path, 'w', userblock_size=512) as file:
        file.create_dataset('images', data=images)
        file.create_dataset('depths', data=depths)
    with open(path, 'r+b') as file:
        file.write(b'MATLAB 7.3 MAT-file')
    return images, depths


def write_splits(path, train, test):
    savemat(path, dict(trainNdxs=np.array(train).reshape(-1, 1), testNdxs=np.array(test).reshape(-1, 1)))
    return path


@pytest.fixture
def small(tmp_path):
    images, depths = write_mat(tmp_path / 'labeled.mat', 5)
    return (
        dict(
            mat=tmp_path / 'labeled.mat',
            splits=write_splits(tmp_path / 'splits.mat', [2, 3, 5], [1, 4]),
            out=tmp_path / 'nyu',
            expected=(3, 2),
        ),
        images,
        depths,
    )


def test_prepare_layout_and_values(small, capsys):
    kwargs, images, depths = small
    assert prepare_nyu(**kwargs) == 5
    out = kwargs['out']
    for kind, suffix in (('images', 'jpg'), ('annotations', 'png')):
        assert sorted(p.name for p in (out / kind / 'train').iterdir()) == [f'nyu_000{i}.{suffix}' for i in (2, 3, 5)]
        assert sorted(p.name for p in (out / kind / 'test').iterdir()) == [f'nyu_000{i}.{suffix}' for i in (1, 4)]
    depth = cv2.imread(str(out / 'annotations/test/nyu_0004.png'), cv2.IMREAD_UNCHANGED)
    assert depth.dtype == np.uint16 and depth.shape == (12, 16)
    assert np.abs(depth / 1000 - depths[3].T).max() <= 0.0005 + 1e-6
    image = cv2.imread(str(out / 'images/test/nyu_0004.jpg'))[..., ::-1]  # BGR -> RGB
    assert np.abs(image.astype(int) - images[3].transpose(2, 1, 0)).max() <= 3
    assert '5/5' in capsys.readouterr().out


def test_prepare_resumes_and_leaves_what_is_there(small, capsys):
    kwargs, _, _ = small
    prepare_nyu(**kwargs)
    out = kwargs['out']
    (out / 'images/train/nyu_0003.jpg').unlink()
    (out / 'annotations/train/nyu_0005.png').unlink()
    (out / 'annotations/train/nyu_0005.png.part').write_bytes(b'half')
    before = {p: p.stat().st_mtime_ns for p in out.rglob('nyu_0001*')}
    assert prepare_nyu(**kwargs) == 2 and prepare_nyu(**kwargs) == 0
    assert before == {p: p.stat().st_mtime_ns for p in before} and len(before) == 2
    assert len(list(out.rglob('*.*'))) == 10  # the half-written file was finished under its own name
    assert '3 of 5 are already in' in capsys.readouterr().out


@pytest.mark.parametrize('kept', [0.5, 0.999])
def test_prepare_refuses_a_truncated_file(small, kept):
    kwargs, _, _ = small
    size = kwargs['mat'].stat().st_size
    os.truncate(kwargs['mat'], int(size * kept))
    with pytest.raises(UserError, match='is truncated, download it again'):
        prepare_nyu(**kwargs)
    assert not kwargs['out'].exists()


def test_prepare_refuses_what_does_not_fit(small, tmp_path):
    kwargs, _, _ = small
    with pytest.raises(UserError, match='3 training and 2 test images, the standard one has 795 and 654'):
        prepare_nyu(**dict(kwargs, expected=(795, 654)))
    splits = write_splits(tmp_path / 'more.mat', [1, 2, 3], [4, 5, 6])
    with pytest.raises(UserError, match='holds 5 images, but the split is of 6'):
        prepare_nyu(**dict(kwargs, splits=splits, expected=(3, 3)))
    splits = write_splits(tmp_path / 'twice.mat', [1, 2, 3], [3, 4])
    with pytest.raises(UserError, match=r'once: see \[3\]'):
        prepare_nyu(**dict(kwargs, splits=splits))
    with pytest.raises(UserError, match='lacks trainNdxs, testNdxs'):
        savemat(tmp_path / 'other.mat', dict(a=1))
        read_splits(tmp_path / 'other.mat')
    (tmp_path / 'page.mat').write_text('<html>not found</html>' * 100)
    with pytest.raises(UserError, match='is no HDF5'):
        prepare_nyu(**dict(kwargs, mat=tmp_path / 'page.mat'))
    with pytest.raises(UserError, match='no readable MATLAB file'):
        read_splits(tmp_path / 'page.mat')
    with pytest.raises(UserError, match="'.*missing.mat' does not exist"):
        prepare_nyu(**dict(kwargs, mat=tmp_path / 'missing.mat'))
    with h5py.File(tmp_path / 'raw.mat', 'w') as file:
        file['images'] = np.zeros((5, 16, 12, 3), np.uint8)
        file['depths'] = np.zeros((5, 16, 12), np.float32)
    with pytest.raises(UserError, match=r'images \(5, 16, 12, 3\) uint8 .* should be \(N, 3, W, H\)'):
        prepare_nyu(**dict(kwargs, mat=tmp_path / 'raw.mat'))


def test_prepare_names_the_image_whose_depth_is_impossible(small):
    kwargs, _, _ = small
    with h5py.File(kwargs['mat'], 'r+') as file:
        file['depths'][1, 7, 2] = -1
    with pytest.raises(UserError, match=r'image 2: depth -1.0 m at \(row, column\) \(2, 7\)'):
        prepare_nyu(**kwargs)
    assert len(list(kwargs['out'].rglob('*.*'))) == 2  # image 1; the rest can follow when the file is right


@pytest.mark.parametrize('bad', [np.nan, np.inf, 65.6, -0.1])
def test_millimetres_refuse_what_16_bits_cannot_hold(bad):
    with pytest.raises(ValueError, match=f'depth {bad}'):
        depth_to_millimetres(np.array([[1.0, bad]]))


def test_splits_of_matlab_7_3(tmp_path):
    with h5py.File(tmp_path / 'splits.mat', 'w', userblock_size=512) as file:
        file['trainNdxs'], file['testNdxs'] = np.array([[2.0, 3.0]]), np.array([[1.0]])
    header = b'MATLAB 7.3 MAT-file'.ljust(124) + b'\x00\x02IM'
    with open(tmp_path / 'splits.mat', 'r+b') as file:
        file.write(header)
    splits = read_splits(tmp_path / 'splits.mat')
    assert splits['train'].tolist() == [2, 3] and splits['test'].tolist() == [1]


def test_the_tool_on_the_full_number_of_images(tmp_path, run_tool):
    write_mat(tmp_path / 'labeled.mat', 1449, height=3, width=4)
    order = np.random.default_rng(1).permutation(1449) + 1
    write_splits(tmp_path / 'splits.mat', order[:795], order[795:])
    args = ('prepare_nyu', tmp_path / 'labeled.mat', tmp_path / 'splits.mat', '--out', tmp_path / 'nyu')
    assert run_tool(*args) == (0, '')
    assert len(list((tmp_path / 'nyu/images/train').iterdir())) == 795
    assert len(list((tmp_path / 'nyu/annotations/test').iterdir())) == 654
    os.truncate(tmp_path / 'labeled.mat', 50_000)
    code, message = run_tool(*args)
    assert code == 2 and message.count('\n') == 1 and 'truncated' in message


def picture(height=480, width=640):
    """An image whose blue and green are its column and row, and a depth map that says the same."""
    rows, columns = np.mgrid[:height, :width]
    image = np.stack([columns * 255 // (width - 1), rows * 255 // (height - 1), 0 * rows], -1).astype(np.uint8)
    return image, (columns + 1000 * rows).astype(np.float32)


def test_downsample_crop_keeps_image_and_depth_together():
    image, depth = picture()
    out = DownsampleCrop()(dict(img=image, gt_depth_map=depth))
    assert out['img'].shape == (228, 304, 3) and out['gt_depth_map'].shape == (228, 304)
    # 8 columns and 6 rows are cut off the half-size picture: its pixel (0, 0) shows columns 16, 17 and rows 12, 13
    assert np.array_equal(out['img'][0, 0], cv2.resize(image, (320, 240), interpolation=cv2.INTER_AREA)[6, 8])
    columns, rows = out['gt_depth_map'] % 1000, out['gt_depth_map'] // 1000
    assert set(np.diff(columns[0])) == {2} and columns[0, 0] in (16, 17) and rows[0, 0] in (12, 13)
    assert np.abs(out['img'][..., 0] - columns * 255 / 639).max() < 1.5
    assert np.abs(out['img'][..., 1] - rows * 255 / 479).max() < 1.5
    assert out['ori_shape'] == out['img_shape'] == out['pad_shape'] == (228, 304) and out['scale_factor'] == (0.5, 0.5)


def test_downsample_crop_full_depth_shows_the_same_scene():
    image, depth = picture()
    out = DownsampleCrop(full_depth=True)(dict(img=image, gt_depth_map=depth))
    assert np.array_equal(out['gt_depth_map'], depth[12:468, 16:624])
    assert out['img_shape'] == (228, 304) and out['ori_shape'] == (456, 608)
    out = DownsampleCrop(full_depth=True)(dict(img=image))  # no annotation, at inference
    assert out['ori_shape'] == (456, 608) and 'gt_depth_map' not in out


def test_downsample_crop_refuses():
    with pytest.raises(ValueError, match=r'size=\(330, 228\) must fit into scale=\(320, 240\)'):
        DownsampleCrop(size=(330, 228))
    image, depth = picture()
    with pytest.raises(ValueError, match='a.jpg: the image is 480 x 640 pixels, its depth map 480 x 639'):
        DownsampleCrop()(dict(img=image, gt_depth_map=depth[:, 1:], img_path='a.jpg'))


def test_color_jitter_draws_from_the_papers_ranges(monkeypatch):
    seen = []
    monkeypatch.setattr('nfnet_mm.tasks.depth.transforms.jitter_color', lambda image, *args: seen.append(args) or image)
    np.random.seed(0)
    jitter = DepthColorJitter()
    image, depth = picture(4, 4)
    for _ in range(4000):
        out = jitter(dict(img=image, gt_depth_map=depth))
    assert out['gt_depth_map'] is depth
    gray, brightness, saturation, hue = map(np.array, zip(*seen))
    assert abs(gray.mean() - 0.3) < 0.03
    for values, low, high in ((brightness, -0.1255, 0.1255), (saturation, 0.5, 1.5), (hue, -0.2, 0.2)):
        assert low <= values.min() < low + 0.01 * (high - low) and high - 0.01 * (high - low) < values.max() <= high
        assert abs(values.mean() - (low + high) / 2) < 0.02 * (high - low)


def test_color_jitter_matches_colorsys():
    import colorsys

    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (6, 7, 3), dtype=np.uint8)
    out = jitter_color(image, False, 0.1, 1.3, -0.15)
    for before, after in zip(image.reshape(-1, 3), out.reshape(-1, 3)):
        b, g, r = np.clip(before / 255 + 0.1, 0, 1)
        h, s, v = colorsys.rgb_to_hsv(r, g, b)
        r, g, b = colorsys.hsv_to_rgb((h - 0.15) % 1, min(s * 1.3, 1), v)
        assert np.abs(np.array([b, g, r]) * 255 - after).max() <= 0.51
    gray = jitter_color(image, True, 0.0, 1.5, 0.2)
    luma = image @ np.array([0.114, 0.587, 0.299])
    assert np.abs(gray - luma[..., None]).max() <= 0.51


@pytest.mark.parametrize(
    'kwargs, match',
    [
        (dict(gray_prob=1.1), 'gray_prob=1.1'),
        (dict(hue=0.6), 'hue=0.6'),
        (dict(brightness=-1), 'brightness=-1'),
        (dict(saturation=(2, 1)), r'saturation=\(2, 1\)'),
    ],
)
def test_color_jitter_refuses(kwargs, match):
    with pytest.raises(ValueError, match=match):
        DepthColorJitter(**kwargs)
    with pytest.raises(ValueError, match=r'uint8 images, got \(4, 4, 3\) float32'):
        DepthColorJitter()(dict(img=np.zeros((4, 4, 3), np.float32)))


def evaluate(metric, pairs):
    for pred, target in pairs:
        sample = dict(
            pred_depth_map=dict(data=torch.tensor(pred)[None]),
            gt_depth_map=dict(data=torch.tensor(target)[None]),
            img_path='a.jpg',
        )
        metric.process({}, [sample])
    return metric.evaluate(len(pairs))


def test_metric_pools_pixels_not_images():
    # image 1: one valid pixel, off by a factor of 2 (which is over 1.25^3); image 2: three, of which two are exact
    pairs = [([[4.0, 9.0]], [[2.0, 0.0]]), ([[1.0, 2.0, 3.9]], [[1.0, 2.0, 3.0]])]
    out = evaluate(PixelDepthMetric(), pairs)
    assert out['delta1'] == 50.0 and out['delta2'] == 75.0 and out['delta3'] == 75.0  # 3.9 / 3 = 1.3
    assert math.isclose(out['rms'], math.sqrt((2**2 + 0.9**2) / 4), rel_tol=1e-6)
    assert math.isclose(out['rel'], (2 / 2 + 0.9 / 3) / 4, rel_tol=1e-6)


def test_metric_clamps_predictions_and_ignores_what_has_no_depth():
    # clamped to 10 and 0.001 m; NaN, infinite and too far targets do not count
    pairs = [([[50.0, -3.0, 1.0, 1.0, 1.0]], [[10.0, 0.001, float('nan'), float('inf'), 11.0]])]
    out = evaluate(PixelDepthMetric(), pairs)
    assert out['delta1'] == 100.0 and out['rms'] < 1e-6 and out['rel'] < 1e-6
    assert math.isnan(evaluate(PixelDepthMetric(), [([[float('nan')]], [[1.0]])])['rms'])  # never hidden


def test_metric_refuses():
    with pytest.raises(ValueError, match='no pixel of 1 images'):
        evaluate(PixelDepthMetric(), [([[1.0]], [[0.0]])])
    with pytest.raises(ValueError, match=r'a.jpg: the prediction is \(2,\), the depth map \(3,\)'):
        evaluate(PixelDepthMetric(), [([[1.0, 1.0]], [[1.0, 1.0, 1.0]])])
    with pytest.raises(ValueError, match='min_depth=2'):
        PixelDepthMetric(min_depth=2, max_depth=1)
