"""``infer`` on the demo's models of each task, with random weights."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine import Config
from mmengine.registry import MODELS, init_default_scope

from nfnet_mm import commands, inference
from nfnet_mm.errors import UserError

cv2 = pytest.importorskip('cv2')
CONFIGS = Path(__file__).parents[1] / 'demo/configs'
TASKS = dict(
    mmdet='mask_rcnn_nfnet_nano_digits',
    mmpretrain='classify_nfnet_nano_digits',
    mmseg='fcn_nfnet_nano_digits',
    depth='depth_nfnet_nano_rooms',
)


@pytest.fixture(scope='module')
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp('photos')
    (folder / 'more').mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8)
    for name in ('a.png', 'b.jpg', 'more/a.jpg'):
        cv2.imwrite(str(folder / name), noise)
    (folder / 'broken.png').write_bytes((folder / 'a.png').read_bytes()[:40])
    (folder / 'notes.txt').write_text('no image')
    return folder


@pytest.fixture
def model(tmp_path):
    """(config, checkpoint) of a task, and its model."""

    def make(task, **meta):
        pytest.importorskip('mmseg' if task == 'depth' else task)
        path = CONFIGS / f'{TASKS[task]}.py'
        cfg = Config.fromfile(path)
        init_default_scope(cfg.default_scope)
        torch.manual_seed(0)
        built = MODELS.build(cfg.model)
        built.init_weights()
        checkpoint = tmp_path / 'model.pth'
        torch.save(dict(state_dict=built.state_dict(), meta=meta), checkpoint)
        return str(path), str(checkpoint), built

    return make


def infer(*words):
    """Exit status of the command."""
    try:
        commands.main('infer', [str(word) for word in words])
    except SystemExit as stop:
        return stop.code
    return 0


def test_detector(model, photos, tmp_path, capsys):
    names = [f'class {i}' for i in range(10)]
    config, checkpoint, _ = model('mmdet', dataset_meta=dict(classes=names))
    out = tmp_path / 'out'
    assert infer(config, checkpoint, photos, '--out', out, '--score-thr', 0) == 0
    said = capsys.readouterr()
    assert said.out.rstrip().endswith(f'3 images predicted, 1 skipped: pictures and JSON in {out}')
    assert f"skipped: '{photos}/broken.png' is no image that can be read" in said.err
    assert sorted(path.name for path in out.iterdir()) == [
        f'{n}.{s}' for n in ('a', 'a_2', 'b') for s in ('json', 'png')
    ]
    told = json.loads((out / 'a.json').read_text())
    assert (told['image'], told['files']) == (str(photos / 'a.png'), dict(picture='a.png'))
    assert len(told['objects']) > 0
    for one in told['objects']:
        x1, y1, x2, y2 = one['box']
        assert 0 <= x1 <= x2 <= 128 and 0 <= y1 <= y2 <= 96 and one['name'] == names[one['label']]
        assert one['mask']['size'] == [96, 128] and isinstance(one['mask']['counts'], str)
    assert cv2.imread(str(out / 'a.png')).shape == (96, 128, 3)
    highest = max(one['score'] for one in told['objects'])
    infer(config, checkpoint, photos / 'a.png', '--out', out, '--score-thr', min(1, highest + 1e-3))
    assert json.loads((out / 'a.json').read_text())['objects'] == []


def test_classifier(model, photos, tmp_path):
    config, checkpoint, built = model('mmpretrain', dataset_meta=dict(classes=tuple('0123456789')))
    with torch.no_grad():  # whatever the picture, class 7
        built.head.fc.weight.zero_()
        built.head.fc.bias.copy_(torch.eye(10)[7] * np.log(9.0))
    torch.save(
        dict(state_dict=built.state_dict(), meta=dict(dataset_meta=dict(classes=tuple('0123456789')))), checkpoint
    )
    assert infer(config, checkpoint, photos / 'a.png', '--out', tmp_path / 'out') == 0
    top = json.loads((tmp_path / 'out/a.json').read_text())['top']
    assert top[0] == dict(label=7, name='7', score=pytest.approx(0.5)) and len(top) == 5  # 9 / (9 + 9)


def test_segmentor(model, photos, tmp_path):
    told_by_mmseg = dict(label_map=None, reduce_zero_label=False)  # in a checkpoint of a BaseSegDataset's training
    config, checkpoint, _ = model('mmseg', dataset_meta=dict(classes=[f'c{i}' for i in range(11)], **told_by_mmseg))
    assert infer(config, checkpoint, photos / 'b.jpg', '--out', tmp_path) == 0
    told = json.loads((tmp_path / 'b.json').read_text())
    labels = cv2.imread(str(tmp_path / told['files']['labels']), cv2.IMREAD_UNCHANGED)
    assert labels.shape == (96, 128) and sum(one['share'] for one in told['classes']) == pytest.approx(1)
    for one in told['classes']:
        assert one['share'] == pytest.approx((labels == one['label']).mean()) and one['name'] == f'c{one["label"]}'


def test_no_picture_is_written_over_by_another(model, photos, tmp_path):
    """Neither one that was predicted, in its own folder, nor a map by the picture of a like name."""
    config, checkpoint, _ = model('mmseg')
    content = (photos / 'a.png').read_bytes()
    for name in ('a.png', 'a_labels.png'):
        (tmp_path / name).write_bytes(content)
    assert infer(config, checkpoint, tmp_path / 'a.png', tmp_path / 'a_labels.png', '--out', tmp_path) == 0
    assert (tmp_path / 'a.png').read_bytes() == (tmp_path / 'a_labels.png').read_bytes() == content
    told = [json.loads(path.read_text()) for path in sorted(tmp_path.glob('*.json'))]
    assert len(told) == 2 and len({name for one in told for name in one['files'].values()}) == 4
    (tmp_path / 'out').mkdir()
    infer(config, checkpoint, tmp_path / 'a.png', tmp_path / 'a_labels.png', '--out', tmp_path / 'out')
    assert len(list((tmp_path / 'out').glob('*.png'))) == 4


def test_a_map_of_more_labels_than_a_byte_holds():
    from types import SimpleNamespace

    sample = SimpleNamespace(pred_sem_seg=SimpleNamespace(data=torch.tensor([[[3, 300]]])))
    predictor = inference.Predictor.__new__(inference.Predictor)
    predictor.classes = ()
    _, arrays = predictor._segmented(sample, np.zeros((1, 2, 3), np.uint8))
    assert arrays['_labels'].tolist() == [[3, 300]]


def test_a_classifier_of_grey_pictures_reads_them_as_its_config_says(model, photos, tmp_path):
    config, checkpoint, _ = model('mmpretrain')
    mine = tmp_path / 'grey.py'
    mine.write_text(
        f"_base_ = '{config}'\n"
        'model = dict(backbone=dict(in_channels=1), data_preprocessor=dict(mean=[0], std=[1], to_rgb=False))\n'
        "pipeline = [dict(type='LoadImageFromFile', color_type='grayscale'), dict(type='PackInputs')]\n"
        'test_dataloader = dict(dataset=dict(pipeline=pipeline))\n'
    )
    built = MODELS.build(Config.fromfile(mine).model)
    torch.save(dict(state_dict=built.state_dict(), meta={}), checkpoint)
    assert infer(mine, checkpoint, photos / 'a.png', '--out', tmp_path / 'out') == 0
    grey = torch.tensor(cv2.imread(str(photos / 'a.png'), cv2.IMREAD_GRAYSCALE))[None, None].float()
    with torch.no_grad():
        scores = built.eval().head(built.extract_feat(grey)).softmax(-1)
    top = json.loads((tmp_path / 'out/a.json').read_text())['top'][0]
    assert top['score'] == pytest.approx(float(scores.max()), rel=1e-4)


def test_depth(model, photos, tmp_path):
    config, checkpoint, built = model('depth')
    with torch.no_grad():
        for p in built.decode_head.conv_seg.parameters():
            p.zero_()
        built.decode_head.conv_seg.bias.fill_(2.5)
    torch.save(dict(state_dict=built.state_dict()), checkpoint)
    assert infer(config, checkpoint, photos / 'b.jpg', '--out', tmp_path) == 0
    told = json.loads((tmp_path / 'b.json').read_text())
    assert told['depth_in_metres'] == dict.fromkeys(('min', 'mean', 'max'), pytest.approx(2.5))
    assert (cv2.imread(str(tmp_path / told['files']['depth_mm']), cv2.IMREAD_UNCHANGED) == 2500).all()


@pytest.mark.parametrize(
    'images, message',
    [
        (['{photos}/none.jpg'], "no file matches '{photos}/none.jpg'"),
        (['{photos}/*.gif'], "no file matches '{photos}/*.gif'"),
        (['{photos}/a.png', '{empty}'], "folder '{empty}' holds no image (.jpg"),
    ],
)
def test_no_such_images(photos, tmp_path, images, message):
    places = dict(photos=photos, empty=tmp_path)
    with pytest.raises(UserError) as caught:
        inference.find_images([one.format(**places) for one in images])
    assert str(caught.value).startswith(message.format(**places))


def test_images_of_patterns_come_once_and_in_order(photos):
    names = [str(photos / '*.png'), str(photos / 'a.png'), str(photos / '**/*.jpg')]
    assert [path.name for path in inference.find_images(names)] == ['a.png', 'broken.png', 'b.jpg', 'a.jpg']


def test_output_folder_that_cannot_be(tmp_path, monkeypatch):
    (tmp_path / 'file').write_text('')
    with pytest.raises(UserError, match="output folder '.*/file/out' cannot be made: Not a directory"):
        inference.make_folder(str(tmp_path / 'file/out'))
    monkeypatch.setattr(os, 'access', lambda *_: False)  # as root one may write anywhere
    with pytest.raises(UserError, match="output folder '.*' cannot be written"):
        inference.make_folder(str(tmp_path))


def test_what_cannot_be_predicted_is_one_line(model, photos, tmp_path, capsys):
    config, checkpoint, _ = model('mmpretrain')
    assert infer(config, checkpoint, photos / 'notes.txt', '--out', tmp_path / 'out') == 2
    assert capsys.readouterr().err.endswith('error: none of the 1 files can be read as an image\n')
    other = torch.load(checkpoint)
    other['state_dict'].pop('head.fc.bias')
    torch.save(other, checkpoint)
    assert infer(config, checkpoint, photos / 'a.png', '--out', tmp_path / 'out') == 2
    assert 'is not of this model: 1 missing: head.fc.bias' in capsys.readouterr().err
    (tmp_path / 'plain.py').write_text('model = dict(type="ToyLinear")\n')
    assert infer(tmp_path / 'plain.py', checkpoint, photos / 'a.png', '--out', tmp_path / 'out') == 2
    assert (
        'default_scope is None, which has no inferencer known here: known are mmdet, mmseg' in capsys.readouterr().err
    )
    assert list((tmp_path / 'out').iterdir()) == []
