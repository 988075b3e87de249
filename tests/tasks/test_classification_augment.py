"""RandAugment and mixing: numbers against the authors' operations, hand computation and the recipe's text."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.registry import FUNCTIONS, TRANSFORMS
from mmpretrain.structures import DataSample
from PIL import Image

from nfnet_mm.tasks.classification import NFRandAugment, mixing, mixing_collate, randaugment
from nfnet_mm.tasks.classification.mixing import cut_mix, mix_up
from nfnet_mm.tasks.classification.randaugment import OPERATIONS


@pytest.fixture
def img():
    """RGB, smooth in places and noisy in others, not using the whole range."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:37, :53]
    base = np.stack([20 + 3 * x, 200 - 4 * y, 60 + x + y], 2) + rng.integers(-15, 16, (37, 53, 3))
    return base.clip(0, 230).astype(np.uint8)


@pytest.fixture(scope='module')
def released():
    """Two pictures, and what the authors' operations make of them: ``op|<name>|<magnitude>|<sign>|<picture>``."""
    return dict(np.load(Path(__file__).parents[1] / 'data' / 'augment_ops.npz'))


@pytest.mark.parametrize('magnitude', [5, 10, 15])
@pytest.mark.parametrize('name', [name for name in OPERATIONS if name != 'Cutout'])
def test_operations_are_the_released_ones(released, monkeypatch, name, magnitude):
    """Colour operations to the bit. Geometric ones on 99.5 % of all pixels, the borders included: a coordinate that
    float32 puts at a half may fall to either neighbour."""
    for sign in (1, -1):
        monkeypatch.setattr(randaugment, '_signed', lambda level, sign=sign: sign * level)
        for picture in (0, 1):
            theirs = released.get(f'op|{name}|{magnitude}|{sign}|{picture}')
            if theirs is None:
                assert sign == -1 and not name.startswith(('Rotate', 'Shear', 'Translate'))
                continue
            ours = OPERATIONS[name](released[f'image|{picture}'], magnitude / 10)
            assert ours.dtype == np.uint8 and ours.shape == theirs.shape
            same = (np.abs(ours.astype(int) - theirs) <= 1).all(2).mean()
            if name.startswith(('Rotate', 'Shear', 'Translate')):
                assert same > 0.995, (sign, picture)
            else:
                assert np.array_equal(ours, theirs), picture


@pytest.mark.parametrize('value', [0, 77, 255])
def test_a_flat_image_is_no_special_case(value):
    flat = np.full((9, 9, 3), value, np.uint8)
    for name in ('AutoContrast', 'Equalize'):
        assert np.array_equal(OPERATIONS[name](flat, 0.5), flat)
    # 9 x 9 pixels make 81 // 256 = 0, whatever their grey is
    assert np.array_equal(OPERATIONS['Contrast'](flat, 0.5), flat)
    assert (OPERATIONS['Contrast'](flat, 0) == int(value / 10)).all()


def test_contrast_depends_on_the_size():
    """At factor 0.1: 0.9 x min(H * W / 256, 255) + 0.1 x pixel."""
    for side, middle in ((32, 4), (224, 196), (320, 255)):
        assert (OPERATIONS['Contrast'](np.full((side, side, 3), 100, np.uint8), 0) == int(0.9 * middle + 10)).all()


def test_thresholds_are_8_bit_numbers():
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, 2)
    for level, threshold in ((0, 0), (0.3, 76), (0.9, 230), (1, 0), (1.2, 51), (1.5, 128), (2, 0)):
        assert np.array_equal(OPERATIONS['Solarize'](ramp, level), np.where(ramp < threshold, ramp, 255 - ramp))
    for level, bits in ((0, 1), (0.2, 1), (0.3, 1), (0.5, 2), (1, 4), (1.5, 6), (2, 8), (2.5, 1)):
        kept = 256 - 2 ** (8 - bits)
        assert np.array_equal(OPERATIONS['Posterize'](ramp, level), ramp & np.uint8(kept))


def test_solarize_add():
    img = np.array([0, 50, 127, 128, 200, 255], np.uint8).reshape(1, 2, 3)
    assert OPERATIONS['SolarizeAdd'](img, 0.5).ravel().tolist() == [55, 105, 182, 128, 200, 255]  # + 55 below 128
    assert OPERATIONS['SolarizeAdd'](img, 1.5).ravel().tolist() == [165, 215, 255, 128, 200, 255]  # + 165, clipped


def warped_by_hand(img, source):
    """Every output pixel looked up on its own; ``source`` maps (x, y) to where it comes from."""
    out = np.full_like(img, 128)
    height, width = img.shape[:2]
    for y in range(height):
        for x in range(width):
            sx, sy = (math.floor(value + 0.5) for value in source(x, y))
            if 0 <= sx < width and 0 <= sy < height:
                out[y, x] = img[sy, sx]
    return out


@pytest.mark.parametrize('sign', [1, -1])
@pytest.mark.parametrize('level', [0.13, 0.47, 1.57])
def test_geometric_operations_by_hand(img, monkeypatch, level, sign):
    monkeypatch.setattr(randaugment, '_signed', lambda level: sign * level)
    angle, slope, far = math.radians(30 * level * sign), 0.3 * level * sign, 100 * level * sign
    cy, cx = (img.shape[0] - 1) / 2, (img.shape[1] - 1) / 2
    sources = dict(
        Rotate=lambda x, y: (
            cx + math.cos(angle) * (x - cx) - math.sin(angle) * (y - cy),
            cy + math.sin(angle) * (x - cx) + math.cos(angle) * (y - cy),
        ),
        ShearX=lambda x, y: (x + slope * y, y),
        ShearY=lambda x, y: (x, y + slope * x),
        TranslateX=lambda x, y: (x + far, y),
        TranslateY=lambda x, y: (x, y + far),
    )
    for name, source in sources.items():
        ours, by_hand = OPERATIONS[name](img, level), warped_by_hand(img, source)
        # coordinates within rounding of a half may fall to either neighbour
        assert (ours != by_hand).any(2).mean() < 0.01, name


def test_rotation_is_pillows(img, monkeypatch):
    """Another code for the same thing, up to its half-pixel rounding at the border."""
    monkeypatch.setattr(randaugment, '_signed', lambda level: level)
    theirs = np.asarray(Image.fromarray(img).rotate(15, Image.Resampling.NEAREST, fillcolor=(128, 128, 128)))
    assert (OPERATIONS['Rotate'](img, 0.5) != theirs).any(2).mean() < 0.02


def test_cutout_covers_a_square_of_twice_the_half_side(monkeypatch):
    img = np.zeros((224, 224, 3), np.uint8)
    corners = iter([100, 120, 0, 223])
    monkeypatch.setattr(np.random, 'randint', lambda high: next(corners))
    inside = OPERATIONS['Cutout'](img, 0.5)
    assert (inside == 128).sum() == 3 * 40 * 40 and (inside[80:120, 100:140] == 128).all()
    at_corner = OPERATIONS['Cutout'](img, 1.5)
    assert (at_corner == 128).sum() == 3 * 60 * 61 and not img.any()


@pytest.mark.parametrize('prob, applied', [(None, 1), ((0.2, 0.8), 0.5), ((0, 0), 0)])
def test_recipe_draws(monkeypatch, prob, applied):
    """Four operations, uniform over sixteen, always applied; or by a drawn probability, where one is asked for."""
    seen = []
    for name in OPERATIONS:
        monkeypatch.setitem(OPERATIONS, name, lambda img, level, name=name: seen.append((name, level)) or img)
    np.random.seed(0)
    augment = NFRandAugment(15) if prob is None else NFRandAugment(15, prob=prob)
    assert len(augment.operations) == 16
    for _ in range(2000):
        augment(dict(img=np.zeros((2, 2, 3), np.uint8)))
    if applied == 0.5:
        assert abs(len(seen) / 8000 - 0.5) < 0.02
    else:
        assert len(seen) == 8000 * applied
    assert {level for _, level in seen} <= {1.5}
    if applied:
        counts = {name: sum(n == name for n, _ in seen) for name in OPERATIONS}
        assert all(abs(count / (500 * applied) - 1) < 0.3 for count in counts.values()), counts


def test_colour_order_is_mmcvs():
    """Grey is 0.299 R + 0.587 G + 0.114 B: mmcv's images are BGR."""
    bgr = np.zeros((4, 4, 3), np.uint8)
    bgr[..., 2] = 200  # red
    grey = NFRandAugment(0, num_ops=1, operations=['Color'])(dict(img=bgr))['img']
    assert grey[0, 0].tolist() == [53, 53, 73]  # grey 59.8 -> 59; 0.9 * grey + 0.1 * colour


def test_seed_decides():
    img = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    results = []
    for seed in (1, 1, 2):
        np.random.seed(seed)
        results.append(np.stack([NFRandAugment(10)(dict(img=img))['img'] for _ in range(8)]))
    assert np.array_equal(results[0], results[1]) and not np.array_equal(results[0], results[2])


@pytest.mark.parametrize(
    'kwargs, quoted',
    [
        (dict(magnitude=-1), 'magnitude=-1'),
        (dict(magnitude='9'), "magnitude='9'"),
        (dict(magnitude=5, num_ops=1.5), '1.5'),
        (dict(magnitude=5, prob=(0.8, 0.2)), r'\(0.8, 0.2\)'),
        (dict(magnitude=5, operations=['Blur']), 'unknown: Blur'),
    ],
)
def test_bad_arguments(kwargs, quoted):
    with pytest.raises(ValueError, match=quoted):
        NFRandAugment(**kwargs)


def test_bad_image():
    with pytest.raises(ValueError, match='float32'):
        NFRandAugment(5)(dict(img=np.zeros((4, 4, 3), np.float32)))


def batch_of(size, num_classes=7, pixels=16):
    """Image i is all 10 * i, of class i."""
    return [
        dict(
            inputs=torch.full((3, pixels, pixels), 10 * i, dtype=torch.uint8),
            data_samples=DataSample().set_gt_label(i % num_classes),
        )
        for i in range(size)
    ]


def test_half_mixup_half_cutmix_with_true_labels():
    np.random.seed(3)
    out = mixing_collate(batch_of(6), num_classes=7)
    assert len(out['inputs']) == len(out['data_samples']) == 6
    for i, (img, sample) in enumerate(zip(out['inputs'], out['data_samples'])):
        score, j = sample.gt_score, (i + 1) % 6
        assert img.dtype == torch.uint8 and img.shape == (3, 16, 16) and 'gt_label' not in sample
        assert score.shape == (7,) and abs(score.sum() - 1) < 1e-6
        expected = 10 * (i * score[i] + j * score[j])  # the label tells the mean of the pixels
        if i < 3:
            assert len(img.unique()) == 1 and abs(img[0, 0, 0] - expected) <= 0.5
        else:
            assert set(img.unique().tolist()) <= {10 * i, 10 * j}
            assert abs(img.float().mean() - expected) < 1e-4


def test_mixing_weights_follow_their_distributions():
    np.random.seed(0)
    scores = [s.gt_score for _ in range(300) for s in mixing_collate(batch_of(4, pixels=64), 7)['data_samples']]
    own = torch.stack([score[i % 4] for i, score in enumerate(scores)])
    mixup, cutmix = own.view(-1, 2, 2).unbind(1)
    # Beta(0.2, 0.2): mean 1/2, variance 1 / (4 * 1.4); CutMix boxes at the border are cut off, so more remains
    assert abs(mixup.mean() - 0.5) < 0.05 and abs(mixup.var() - 1 / 5.6) < 0.02
    assert 0.6 < cutmix.mean() < 0.75


def test_mix_up_rounds_and_cut_mix_counts():
    a, b = np.full((2, 2, 3), 255, np.uint8), np.zeros((2, 2, 3), np.uint8)
    assert mix_up(a, b, 0.5).max() == 128 and mix_up(a, b, 1.0).min() == 255 and mix_up(a, b, 0.0).max() == 0
    a, b = np.ones((10, 20, 3), np.uint8), np.zeros((10, 20, 3), np.uint8)
    mixed, left = cut_mix(a, b, 0.75, (5, 10))  # half of each side: 4 x 10 of 10 x 20 pixels (half-sides rounded down)
    assert left == 1 - 40 / 200 and mixed[..., 0].sum() == 160 and not mixed[3:7, 5:15].any()
    mixed, left = cut_mix(a, b, 0.75, (0, 19))
    assert left == 1 - 2 * 6 / 200 and mixed[..., 0].mean() == pytest.approx(left)
    assert cut_mix(a, b, 1.0, (5, 10))[1] == 1 and a.all()


def test_randaugment_comes_after_mixing(monkeypatch):
    calls = []
    monkeypatch.setattr(
        NFRandAugment, 'transform', lambda self, results: calls.append(results['img'].copy()) or results
    )
    np.random.seed(0)
    out = mixing_collate(batch_of(4), 7, randaugment=dict(magnitude=15))
    assert len(calls) == 4
    for seen, img in zip(calls, out['inputs']):
        assert np.array_equal(seen, img.permute(1, 2, 0).numpy())


def test_batch_is_left_alone_and_seeded():
    batch = batch_of(5)
    outs = []
    for _ in range(2):
        np.random.seed(7)
        outs.append(mixing_collate(batch, 7, randaugment=dict(magnitude=10)))
    assert all(torch.equal(a, b) for a, b in zip(outs[0]['inputs'], outs[1]['inputs']))
    assert [int(s['data_samples'].gt_label) for s in batch] == list(range(5))
    assert all('gt_score' not in s['data_samples'] for s in batch)


def test_an_image_alone_is_augmented_unmixed_with_one_warning(monkeypatch):
    one = batch_of(3)[2:]
    mixing._warn_of_one_image.cache_clear()
    with pytest.warns(UserWarning, match='a batch of one image is not mixed.*batch_size=1 would mean no MixUp') as seen:
        for _ in range(3):
            out = mixing_collate(one, 7)
    assert len(seen) == 1
    assert torch.equal(out['inputs'], torch.full((1, 3, 16, 16), 20, dtype=torch.uint8))
    sample = out['data_samples'][0]
    assert sample.gt_score.tolist() == [0, 0, 1, 0, 0, 0, 0] and 'gt_label' not in sample
    monkeypatch.setattr(NFRandAugment, 'transform', lambda self, results: dict(img=255 - results['img']))
    assert mixing_collate(one, 7, randaugment=dict(magnitude=15))['inputs'].unique().tolist() == [235]
    assert one[0]['inputs'].unique().tolist() == [20]


def test_an_epoch_whose_last_batch_is_one_image():
    loader = torch.utils.data.DataLoader(batch_of(5), batch_size=2, collate_fn=lambda batch: mixing_collate(batch, 7))
    assert [len(batch['inputs']) for batch in loader] == [2, 2, 1]


def test_mixing_errors():
    with pytest.raises(ValueError, match='at least one image, got an empty batch'):
        mixing_collate([], 7)
    with pytest.raises(ValueError, match=r'gt_label=\[3\] must be one class of 0 to 2'):
        mixing_collate(batch_of(4), 3)
    odd = batch_of(2)
    odd[0]['inputs'] = torch.zeros(3, 8, 8)
    with pytest.raises(ValueError, match='float32'):
        mixing_collate(odd, 7)


def test_registered():
    """As a config names them, whatever its default scope."""
    assert FUNCTIONS.get('nfnet_mm.mixing_collate') is mixing_collate
    assert isinstance(TRANSFORMS.build(dict(type='nfnet_mm.NFRandAugment', magnitude=5)), NFRandAugment)
