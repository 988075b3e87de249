"""NYU: the preparation tool, the data set, the transforms and the metric, on small data in the real formats."""

import math
import os

import cv2
import numpy as np
import pytest
import torch

pytest.importorskip('mmseg')
h5py = pytest.importorskip('h5py')
savemat = pytest.importorskip('scipy.io').savemat

from nfnet_mm.errors import UserError  # noqa: E402
from nfnet_mm.tasks.depth import DepthColorJitter, DownsampleCrop, NYUDepthDataset, PixelDepthMetric  # noqa: E402
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


def frame(root, split, name, depth, scale=1000, dtype=np.uint16):
    """One image and its depth map in metres, written as either tool does; depth None: no map."""
    for kind in ('images', 'annotations'):
        (root / kind / split).mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(root / f'images/{split}/{name}.jpg'), np.zeros((3, 4, 3), np.uint8))
    if depth is not None:
        cv2.imwrite(str(root / f'annotations/{split}/{name}.png'), np.full((3, 4), round(depth * scale), dtype))


def dataset(root, split='train', frames='raw', factor=1e-3, **kwargs):
    pipeline = [dict(type='mmseg.LoadDepthAnnotation', depth_rescale_factor=factor)]
    prefix = dict(img_path=f'images/{split}', depth_map_path=f'annotations/{split}')
    return NYUDepthDataset(frames, data_root=str(root), data_prefix=prefix, pipeline=pipeline, **kwargs)


def metres(data):
    """{name of the image: depth of its first pixel as the pipeline gives it}."""
    infos = [data.get_data_info(i) for i in range(len(data))]
    return {
        os.path.basename(info['img_path'])[:-4]: float(data[i]['gt_depth_map'][0, 0]) for i, info in enumerate(infos)
    }


def test_frames_of_both_tools_in_one_folder(small, log_lines):
    kwargs, _, depths = small
    prepare_nyu(**kwargs)  # the labelled images 2, 3, 5 to train on and 1, 4 to test on
    root = kwargs['out']
    labelled = {f'nyu_{i + 1:04d}': depths[i, 0, 0] for i in range(5)}
    for frames, split in (('labelled', 'train'), ('test', 'test')):
        got = metres(dataset(root, split, frames))
        assert got == pytest.approx({name: labelled[name] for name in got}, abs=5.1e-4)
        assert len(got) == (3 if split == 'train' else 2)
    # as mmseg's converter names frames and test images, and as a tool of one's own might
    raw = {'bathroom_0030_00012': 1.2345, 'cafe_0001a_00007': 3.5, 'mine': 9.999}
    for name, depth in raw.items():
        frame(root, 'train', name, depth)
    frame(root, 'test', 'cafe_00045', 2.5)
    assert metres(dataset(root)) == pytest.approx({**raw, 'bathroom_0030_00012': 1.234})  # round(1234.5)
    assert "frames='raw' takes 3 images and leaves out 3" in log_lines()
    assert set(metres(dataset(root, frames='labelled'))) == {'nyu_0002', 'nyu_0003', 'nyu_0005'}
    # each test image once: those of the labelled file are taken, whose depths are filled in
    assert set(metres(dataset(root, 'test', 'test'))) == {'nyu_0001', 'nyu_0004'}
    assert "frames='test' takes 2 images and leaves out 1" in log_lines()
    for name in ('nyu_0001', 'nyu_0004'):
        (root / f'images/test/{name}.jpg').unlink()
    assert metres(dataset(root, 'test', 'test')) == {'cafe_00045': 2.5}
    # mmseg's own number of the scene, or none
    assert [info['category_id'] for info in map(dataset(root).get_data_info, range(3))] == [1, 17, -1]


def test_dataset_refuses(tmp_path):
    with pytest.raises(UserError, match="frames='labeled' must be 'raw', 'labelled', 'test'. Did you mean 'labelled'?"):
        dataset(tmp_path, frames='labeled')
    with pytest.raises(UserError, match=r"frames=\['raw'\] must be"):
        dataset(tmp_path, frames=['raw'])
    how = 'mmseg.*train_dataloader.dataset.frames=labelled'
    with pytest.raises(UserError, match=f"no folder '.*/images/train' for frames='raw': .*{how}"):
        dataset(tmp_path)
    frame(tmp_path, 'train', 'nyu_0003', 2.0)
    with pytest.raises(UserError, match=f"images/train' holds 1 .jpg images, none for frames='raw': .*{how}"):
        dataset(tmp_path)
    frame(tmp_path, 'train', 'cafe_0001_00001', 2.0)
    frame(tmp_path, 'train', 'cafe_0001_00002', None)
    with pytest.raises(
        UserError, match=r"1 of 2 images have no depth map \(.png\) .*, for one '.*cafe_0001_00002.jpg'"
    ):
        dataset(tmp_path)
    assert len(dataset(tmp_path, frames='labelled')) == 1
    (tmp_path / 'images/test').mkdir()
    with pytest.raises(UserError, match="no folder '.*/annotations/test' for frames='test': tools/prepare_nyu.py"):
        dataset(tmp_path, 'test', 'test')
    # without depth maps, as for pictures that are only predicted
    assert len(NYUDepthDataset(data_root=str(tmp_path), data_prefix=dict(img_path='images/train'))) == 2


@pytest.mark.parametrize(
    'scale, dtype, factor, median',
    [
        (1000, np.uint16, 1, '2500 m, .* is depth_rescale_factor=1 theirs'),  # millimetres taken for metres
        (25.5, np.uint8, 1e-3, '0.064 m'),  # 8 bits, 255 being 10 m
        (100, np.uint16, 1e-3, '0.25 m'),  # centimetres
        (5000, np.uint16, 1e-3, '12.5 m'),  # the unit of TUM's depth maps
        (256, np.uint16, 1e-3, '0.64 m'),  # that of KITTI's
        (0, np.uint16, 1e-3, 'not one pixel has a depth'),
    ],
)
def test_dataset_refuses_depths_that_are_not_metres(tmp_path, scale, dtype, factor, median):
    for number in range(20):
        frame(tmp_path, 'train', f'cafe_0001_{number:05d}', 2.5, scale, dtype)
    with pytest.raises(UserError, match=f"annotations/train', depth maps of 16 images: .*{median}"):
        dataset(tmp_path, factor=factor)
    if scale:
        read = metres(dataset(tmp_path, factor=1 / scale)).values()
        assert list(read) == pytest.approx([2.5] * 20, rel=0.01)


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
