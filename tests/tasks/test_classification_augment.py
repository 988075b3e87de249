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
from nfnet_mm.tasks.classification.mixing import cut_mix
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


def batch_of(size, num_classes=7, pixels=16, dtype=torch.uint8):
    """Image i is all 10 * i, of class i."""
    return [
        dict(
            inputs=torch.full((3, pixels, pixels), 10 * i, dtype=dtype),
            data_samples=DataSample().set_gt_label(i % num_classes),
        )
        for i in range(size)
    ]


def noise_of(size, dtype=np.float32, shape=(3, 12, 18)):
    """Images that overshoot 0-255, where their type can, as resized ones do."""
    images = np.random.default_rng(0).uniform(-20, 275, (size, *shape))
    images = images.clip(0, 255).astype(dtype) if dtype == np.uint8 else images.astype(dtype)
    return [dict(inputs=torch.from_numpy(x), data_samples=DataSample().set_gt_label(i)) for i, x in enumerate(images)]


def mixed_by_formula(batch, classes, mixup, cutmix, alpha=0.2):
    """The whole batch in float64, by masks: image_i * mask + image_j * (1 - mask); numpy's draws are used up alike."""
    images = np.stack([sample['inputs'].numpy() for sample in batch]).astype(np.float64)
    labels = np.eye(classes)[[int(sample['data_samples'].gt_label) for sample in batch]]
    n, _, height, width = images.shape
    if mixup and cutmix:  # n is a multiple of 4
        partners = [*range(n // 4, n // 2), *range(3 * n // 4, n)]
        firsts = [*range(n // 4), *range(n // 2, 3 * n // 4)]
    else:
        firsts, partners = range(n // 2), range(n // 2, n)
    y, x = np.mgrid[:height, :width]
    out = []
    for place, (i, j) in enumerate(zip(firsts, partners)):
        if mixup and not (cutmix and place >= n // 4):
            mask = np.full((height, width), np.random.beta(alpha, alpha))
        else:
            cy, cx, share = np.random.randint(height), np.random.randint(width), np.random.rand()
            reach_y, reach_x = (int(math.sqrt(1 - share) * side) // 2 for side in (height, width))
            inside = (cy - reach_y <= y) & (y < cy + reach_y) & (cx - reach_x <= x) & (x < cx + reach_x)
            mask = 1.0 - inside
        kept = mask.mean()
        out.append((images[i] * mask + images[j] * (1 - mask), kept * labels[i] + (1 - kept) * labels[j]))
    return map(np.stack, zip(*out))


@pytest.mark.parametrize('dtype', [np.float32, np.uint8])
@pytest.mark.parametrize('mixup, cutmix', [(True, True), (True, False), (False, True), (0.7, True)])
def test_a_batch_is_the_formulas(mixup, cutmix, dtype):
    batch = noise_of(8, dtype)
    for seed in range(5):
        np.random.seed(seed)
        out = mixing_collate(batch, 8, mixup=mixup, cutmix=cutmix)
        drawn = np.random.rand()
        np.random.seed(seed)
        images, labels = mixed_by_formula(batch, 8, mixup, cutmix, 0.2 if mixup is True else mixup)
        assert np.random.rand() == drawn
        assert out['inputs'].dtype == torch.float32 and out['inputs'].shape == (4, 3, 12, 18)
        np.testing.assert_allclose(out['inputs'].numpy(), images, rtol=0, atol=1e-4)
        scores = torch.stack([sample.gt_score for sample in out['data_samples']])
        np.testing.assert_allclose(scores.numpy(), labels, rtol=0, atol=1e-6)
        assert dtype == np.uint8 or (images.min() < -10 and images.max() > 265)  # unclipped


@pytest.mark.parametrize('mixup, cutmix', [(True, True), (True, False), (False, True), (False, False)])
def test_randaugment_gets_the_mixture_clipped_and_cut_off(mixup, cutmix):
    """Its one operation, which inverts, takes no second draw."""
    batch, invert = noise_of(8), dict(magnitude=10, num_ops=1, operations=['Invert'])
    draw = np.random.randint
    np.random.seed(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(np.random, 'randint', lambda high: 0 if high == 1 else draw(high))  # of one operation
        out = mixing_collate(batch, 8, mixup=mixup, cutmix=cutmix, randaugment=invert)['inputs'].numpy()
    np.random.seed(0)
    images = np.stack([sample['inputs'].numpy() for sample in batch])
    if mixup or cutmix:
        images, _ = mixed_by_formula(batch, 8, mixup, cutmix)
    expected = 255 - np.floor(images.clip(0, 255))
    assert out.dtype == np.uint8 and out.shape == expected.shape
    if mixup:  # float32 may fall to the other side of a whole number
        assert np.abs(out - expected).max() <= 1 and (out != expected).mean() < 1e-3
    else:
        assert np.array_equal(out, expected)


def test_without_mixing_images_stay_what_they_are():
    batch = noise_of(3)
    out = mixing_collate(batch, 5, mixup=False, cutmix=False)
    assert torch.equal(out['inputs'], torch.stack([sample['inputs'] for sample in batch]))
    assert [sample.gt_score.tolist() for sample in out['data_samples']] == np.eye(5)[:3].tolist()


@pytest.mark.filterwarnings('ignore:an image is not mixed')
@pytest.mark.parametrize(
    'size, expected',
    [
        (1, [{0}]),
        (2, [{0, 1}]),
        (3, [{0, 1}, {2}]),
        (4, [{0, 1}, {2, 3}]),
        (5, [{0, 1}, {2, 3}, {4}]),
        (6, [{0, 2}, {1, 3}, {4, 5}]),
        (10, [{0, 3}, {1, 4}, {2, 5}, {6, 8}, {7, 9}]),
    ],
)
def test_every_image_goes_into_one_output(size, expected):
    """MixUp's first, by one more than CutMix's; whole numbers of tens tell who is in it."""
    found, uniform = [set() for _ in expected], []
    for seed in range(8):
        np.random.seed(seed)
        out = mixing_collate(batch_of(size, 10), num_classes=10)
        assert len(out['inputs']) == len(out['data_samples']) == len(expected)
        for i, (img, sample) in enumerate(zip(out['inputs'], out['data_samples'])):
            score = sample.gt_score
            assert 'gt_label' not in sample and abs(score.sum() - 1) < 1e-6
            assert abs(img.mean() - 10 * (score * torch.arange(10)).sum()) < 1e-4  # the label tells the mean
            found[i] |= set(score.nonzero().flatten().tolist())
            uniform.append((i, len(img.unique()) == 1))
    assert found == expected
    pairs = size // 2
    assert all(one for i, one in uniform if i < (pairs + 1) // 2 or i == pairs)
    assert not all(one for i, one in uniform if (pairs + 1) // 2 <= i < pairs) or pairs < 2


def test_mixing_weights_follow_their_distributions():
    np.random.seed(0)
    scores = [s.gt_score for _ in range(300) for s in mixing_collate(batch_of(8, 8, pixels=64), 8)['data_samples']]
    mixup, cutmix = torch.stack([score[[0, 1, 4, 5][i % 4]] for i, score in enumerate(scores)]).view(-1, 2, 2).unbind(1)
    # Beta(0.2, 0.2): mean 1/2, variance 1 / (4 * 1.4); CutMix boxes at the border are cut off, so more remains
    assert abs(mixup.mean() - 0.5) < 0.05 and abs(mixup.var() - 1 / 5.6) < 0.02
    assert 0.6 < cutmix.mean() < 0.75


def test_cut_mix_counts():
    a, b = torch.ones(3, 10, 20), torch.zeros(3, 10, 20)
    mixed, left = cut_mix(a, b, 0.75, (5, 10))  # half of each side: 4 x 10 of 10 x 20 pixels (half-sides rounded down)
    assert left == 1 - 40 / 200 and mixed[0].sum() == 160 and not mixed[:, 3:7, 5:15].any()
    mixed, left = cut_mix(a, b, 0.75, (0, 19))
    assert left == 1 - 2 * 6 / 200 and mixed[0].mean().item() == pytest.approx(left)
    assert cut_mix(a, b, 1.0, (5, 10))[1] == 1 and a.all()


@pytest.mark.filterwarnings('ignore:an image is not mixed')
def test_batch_is_left_alone_and_seeded():
    batch = batch_of(5)
    outs = []
    for _ in range(2):
        np.random.seed(7)
        outs.append(mixing_collate(batch, 7, randaugment=dict(magnitude=10)))
    assert torch.equal(outs[0]['inputs'], outs[1]['inputs'])
    assert [int(s['data_samples'].gt_label) for s in batch] == list(range(5))
    assert [s['inputs'].unique().tolist() for s in batch] == [[10 * i] for i in range(5)]
    assert all('gt_score' not in s['data_samples'] for s in batch)


def test_an_image_alone_is_augmented_unmixed_with_one_warning(monkeypatch):
    one = batch_of(3)[2:]
    mixing._warn_of_odd_image.cache_clear()
    with pytest.warns(UserWarning, match='an image is not mixed.*batch_size=1 would mean no MixUp') as seen:
        for _ in range(3):
            out = mixing_collate(one, 7)
    assert len(seen) == 1
    assert torch.equal(out['inputs'], torch.full((1, 3, 16, 16), 20.0))
    sample = out['data_samples'][0]
    assert sample.gt_score.tolist() == [0, 0, 1, 0, 0, 0, 0] and 'gt_label' not in sample
    monkeypatch.setattr(NFRandAugment, 'augment', lambda self, img: 255 - img)
    assert mixing_collate(one, 7, randaugment=dict(magnitude=15))['inputs'].unique().tolist() == [235]
    assert one[0]['inputs'].unique().tolist() == [20]


def test_an_epoch_whose_last_batch_is_one_image():
    loader = torch.utils.data.DataLoader(batch_of(5), batch_size=2, collate_fn=lambda batch: mixing_collate(batch, 7))
    assert [len(batch['inputs']) for batch in loader] == [1, 1, 1]


def test_augmented_colours_keep_their_order():
    """The batch is BGR as mmcv's images are: grey is 0.299 R + 0.587 G + 0.114 B."""
    batch = batch_of(2)
    batch[0]['inputs'][2] = batch[1]['inputs'][2] = 200  # red
    batch[0]['inputs'][:2] = batch[1]['inputs'][:2] = 0
    out = mixing_collate(batch, 7, randaugment=dict(magnitude=0, num_ops=1, operations=['Color']))['inputs']
    assert out[0, :, 0, 0].tolist() == [53, 53, 73]  # grey 59.8 -> 59; 0.9 * grey + 0.1 * colour


def test_mixing_errors():
    with pytest.raises(ValueError, match='at least one image, got an empty batch'):
        mixing_collate([], 7)
    with pytest.raises(ValueError, match=r'gt_label=\[3\] must be one class of 0 to 2'):
        mixing_collate(batch_of(4), 3)
    odd = batch_of(2)
    for bad in (torch.zeros(3, 16, 16), torch.zeros(3, 8, 8, dtype=torch.uint8)):
        odd[0]['inputs'] = bad
        with pytest.raises(ValueError, match='of one size, all float32 or all uint8, got .*uint8'):
            mixing_collate(odd, 7)
    with pytest.raises(ValueError, match='float64'):
        mixing_collate(batch_of(2, dtype=torch.float64), 7)
    for mixup in (0, -1, 'yes', None, math.nan):
        with pytest.raises(ValueError, match=f'mixup={mixup!r} must be a positive finite number'):
            mixing_collate(batch_of(2), 7, mixup=mixup)
    with pytest.raises(ValueError, match='cutmix=1.0 must be True or False'):
        mixing_collate(batch_of(2), 7, cutmix=1.0)


def test_how_many_images_make_one():
    told = [
        mixing_collate.images_per_output(num_classes=7, mixup=m, cutmix=c) for m in (True, False) for c in (True, False)
    ]
    assert told == [2, 2, 2, 1] and mixing_collate.images_per_output() == 2


def test_registered():
    """As a config names them, whatever its default scope."""
    assert FUNCTIONS.get('nfnet_mm.mixing_collate') is mixing_collate
    assert isinstance(TRANSFORMS.build(dict(type='nfnet_mm.NFRandAugment', magnitude=5)), NFRandAugment)
