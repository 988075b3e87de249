import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from demo import digits
from demo.digits import DigitsSpec, decode_rle, generate

SMALL = DigitsSpec(train=24, val=6)


def load(root, split):
    return json.loads((root / 'annotations' / f'{split}.json').read_text())


def digest(root):
    files = sorted(path for path in root.rglob('*') if path.is_file())
    return [(str(path.relative_to(root)), hashlib.sha256(path.read_bytes()).hexdigest()) for path in files]


def test_annotations_say_what_the_masks_say(digits_root):
    for split, count in (('train', 24), ('val', 6)):
        content = load(digits_root, split)
        assert len(content['images']) == count
        assert [category['name'] for category in content['categories']] == list('0123456789')
        per_image = {}
        for annotation in content['annotations']:
            mask = decode_rle(annotation['segmentation'])
            rows, cols = np.nonzero(mask)
            assert annotation['bbox'] == [cols.min(), rows.min(), np.ptp(cols) + 1, np.ptp(rows) + 1]
            assert annotation['area'] == mask.sum() == len(rows)
            assert mask.shape == (128, 128) and np.ptp(rows) < 55 and np.ptp(cols) < 55
            per_image.setdefault(annotation['image_id'], []).append(mask)
        assert set(per_image) == {image['id'] for image in content['images']}
        for masks in per_image.values():
            assert 1 <= len(masks) <= 4
            assert np.sum(masks, axis=0).max() == 1, 'digits cover each other'
        for image in content['images']:
            picture = np.asarray(Image.open(digits_root / split / image['file_name']))
            assert picture.shape == (128, 128, 3)
            inside = np.any(per_image[image['id']], axis=0)
            assert picture[inside].mean() > 2 * picture[~inside].mean()


def picture(path):
    return np.asarray(Image.open(path))


def test_label_maps_are_the_coco_masks_with_their_categories(digits_root, tmp_path):
    root = generate(tmp_path / 'maps', replace(SMALL, layout='label_maps'))
    for split in ('train', 'val'):
        expected = {image['file_name']: np.zeros((128, 128), int) for image in load(digits_root, split)['images']}
        for annotation in load(digits_root, split)['annotations']:
            name = f'{annotation["image_id"]:06d}.png'
            expected[name] += annotation['category_id'] * decode_rle(annotation['segmentation'])
        assert {path.name for path in (root / 'annotations' / split).iterdir()} == set(expected)
        for name, label_map in expected.items():
            np.testing.assert_array_equal(picture(root / 'annotations' / split / name), label_map)
            np.testing.assert_array_equal(picture(root / 'images' / split / name), picture(digits_root / split / name))


def test_class_folders_hold_one_digit_a_picture_under_its_category(tmp_path):
    spec = DigitsSpec(train=24, val=6, image_size=48, min_digit=24, max_digit=48, max_digits=1)
    coco = generate(tmp_path / 'coco', spec)
    root = generate(tmp_path / 'classes', replace(spec, layout='class_folders'))
    for split in ('train', 'val'):
        assert sorted(path.name for path in (root / split).iterdir()) == list('0123456789')  # empty ones too
        annotations = load(coco, split)['annotations']
        names = {f'{a["image_id"]:06d}.png': a['category_id'] - 1 for a in annotations}
        assert {path.name: int(path.parent.name) for path in (root / split).rglob('*.png')} == names
        assert len(names) == len(annotations) == getattr(spec, split)
        for path in (root / split).rglob('*.png'):
            np.testing.assert_array_equal(picture(path), picture(coco / split / path.name))


def test_pycocotools_reads_the_masks(digits_root):
    coco = pytest.importorskip('pycocotools.coco').COCO(str(digits_root / 'annotations' / 'val.json'))
    for annotation in coco.anns.values():
        np.testing.assert_array_equal(coco.annToMask(annotation) > 0, decode_rle(annotation['segmentation']))


def test_labels_and_scans_are_load_digits_rows_and_no_scan_is_shared(digits_root):
    target = pytest.importorskip('sklearn.datasets').load_digits().target
    scans = {}
    for split in ('train', 'val'):
        annotations = load(digits_root, split)['annotations']
        assert all(annotation['category_id'] == target[annotation['scan']] + 1 for annotation in annotations)
        scans[split] = {annotation['scan'] for annotation in annotations}
    assert not scans['train'] & scans['val']


def test_no_scan_is_shared_in_the_full_split_and_none_is_double():
    images = pytest.importorskip('sklearn.datasets').load_digits().images
    assert len(np.unique(images.reshape(len(images), -1), axis=0)) == len(images) == 1797


def test_same_seed_same_bytes_another_seed_other_pictures(digits_root, tmp_path):
    again = generate(tmp_path / 'again', SMALL)
    assert digest(again) == digest(digits_root)
    other = generate(tmp_path / 'other', DigitsSpec(train=24, val=6, seed=1))
    assert not set(digest(other)) & set(digest(digits_root))


def test_a_second_call_draws_nothing_and_another_spec_replaces(tmp_path, monkeypatch):
    root = generate(tmp_path / 'digits', DigitsSpec(train=2, val=1))
    stamp = (root / 'digits.json').stat().st_mtime_ns
    monkeypatch.setattr(digits, 'compose', None)  # would raise if called
    generate(root, DigitsSpec(train=2, val=1))
    assert (root / 'digits.json').stat().st_mtime_ns == stamp
    monkeypatch.undo()
    generate(root, DigitsSpec(train=3, val=1))
    assert len(load(root, 'train')['images']) == 3


def test_an_interrupted_run_leaves_nothing_that_looks_finished(tmp_path, monkeypatch):
    root, drawn = tmp_path / 'digits', []

    def stop_at_third(*args):
        drawn.append(args)
        if len(drawn) == 3:
            raise KeyboardInterrupt
        return compose(*args)

    compose = digits.compose
    monkeypatch.setattr(digits, 'compose', stop_at_third)
    with pytest.raises(KeyboardInterrupt):
        generate(root, SMALL)
    assert not root.exists() and not list(tmp_path.iterdir())


def test_refuses_to_overwrite_what_it_did_not_write(tmp_path):
    (tmp_path / 'thesis.txt').write_text('years of work')
    with pytest.raises(FileExistsError, match='holds no digits.json'):
        generate(tmp_path, SMALL)
    assert (tmp_path / 'thesis.txt').read_text() == 'years of work'


@pytest.mark.parametrize(
    'wrong', [dict(train=0), dict(min_digit=60), dict(max_digit=200), dict(max_digits=0), dict(layout='class_folders')]
)
def test_wrong_sizes(wrong):
    with pytest.raises(ValueError, match='got DigitsSpec'):
        DigitsSpec(**wrong)


def test_unknown_layout():
    with pytest.raises(ValueError, match="'voc' is none of coco, class_folders, label_maps"):
        DigitsSpec(layout='voc')
