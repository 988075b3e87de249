"""``infer`` on the demo's models of each task, with random weights."""

import csv
import hashlib
import html
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine import Config
from mmengine.registry import MODELS
from PIL import Image

from nfnet_mm import commands, dependencies, inference
from nfnet_mm.deploy import save_folded
from nfnet_mm.errors import UserError, make_folder
from nfnet_mm.inference.drawing import palette_png
from nfnet_mm.inference.predictor import Predictor
from nfnet_mm.inference.tables import Tables

from ..browser import measure

cv2 = pytest.importorskip('cv2')


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
    assert said.out.rstrip().endswith(f'3 images predicted, 1 skipped: pictures, JSON and index.html in {out}')
    assert f"skipped: '{photos}/broken.png' is no image that can be read" in said.err
    own = [f'{n}.{s}' for n in ('a', 'a_2', 'b') for s in ('json', 'png')]
    assert sorted(path.name for path in out.iterdir()) == [*own, 'coco_images.json', 'coco_results.json', 'index.html']
    told = json.loads((out / 'a.json').read_text())
    assert (told['image'], told['files']) == (str(photos / 'a.png'), dict(picture='a.png'))
    assert len(told['objects']) > 0
    for one in told['objects']:
        x1, y1, x2, y2 = one['box']
        assert 0 <= x1 <= x2 <= 128 and 0 <= y1 <= y2 <= 96 and one['name'] == names[one['label']]
        assert one['mask']['size'] == [96, 128] and isinstance(one['mask']['counts'], str)
    assert cv2.imread(str(out / 'a.png')).shape == (96, 128, 3)
    coco = pytest.importorskip('pycocotools.coco').COCO(out / 'coco_images.json')
    found = coco.loadRes(str(out / 'coco_results.json')).imgToAnns
    assert [coco.imgs[i]['file_name'] for i in (1, 2, 3)] == [str(photos / n) for n in ('a.png', 'b.jpg', 'more/a.jpg')]
    assert [coco.cats[one['category_id']]['name'] for one in found[1]] == [one['name'] for one in told['objects']]
    for one, same in zip(found[1], told['objects']):
        x, y, width, height = one['bbox']
        rows, columns = np.nonzero(coco.annToMask(one))
        assert ((x - 1 <= columns) & (columns <= x + width) & (y - 1 <= rows) & (rows <= y + height)).all()
        assert one['score'] == same['score']
        assert [one['bbox'][0] + one['bbox'][2], one['bbox'][1] + one['bbox'][3]] == pytest.approx(same['box'][2:])
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
    image = Image.open(tmp_path / told['files']['labels'])
    labels = np.asarray(image)
    colours = np.asarray(image.convert('RGB')).reshape(-1, 3)
    assert image.mode == 'P' and len(np.unique(colours, axis=0)) == len(np.unique(labels))
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
    content = np.frombuffer(palette_png(np.array([[3, 300]]), []), np.uint8)
    assert cv2.imdecode(content, cv2.IMREAD_UNCHANGED).tolist() == [[3, 300]]


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


def test_pictures_under_the_stride_are_named(model, tmp_path, capsys):
    config, checkpoint, _ = model('mmpretrain')  # which resizes nothing, and has a stride of 32
    for side in (31, 32):
        cv2.imwrite(str(tmp_path / f'{side}.png'), np.full((side, 40, 3), 90, np.uint8))
    assert infer(config, checkpoint, tmp_path / '31.png', tmp_path / '32.png', '--out', tmp_path / 'out') == 0
    line = f"1 of the pictures reach the network in fewer pixels than its stride of 32, as '{tmp_path}/31.png' in 31x40"
    assert line in capsys.readouterr().err and line in html.unescape((tmp_path / 'out/index.html').read_text())


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
        (['{photos}/a.png', '{empty}'], "folder '{empty}' holds no image or video (.jpg"),
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


def test_output_folder_that_cannot_be_written(tmp_path, monkeypatch):
    monkeypatch.setattr(os, 'access', lambda *_: False)  # as root one may write anywhere
    with pytest.raises(UserError, match="output folder '.*' cannot be written"):
        make_folder(str(tmp_path), 'output folder')


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


def numbers(value):
    """All numbers in what a JSON file holds, in order."""
    if isinstance(value, dict):
        value = [*value.values()]
    if isinstance(value, list):
        return [number for one in value for number in numbers(one)]
    return [value] if isinstance(value, (int, float)) else []


@pytest.mark.parametrize('task', [pytest.param('mmdet', marks=pytest.mark.slow), 'mmpretrain', 'mmseg', 'depth'])
def test_batches_give_what_single_pictures_give(model, photos, tmp_path, task):
    config, checkpoint, _ = model(task)
    noise = np.random.default_rng(1).integers(0, 256, (90, 131, 3), dtype=np.uint8)
    for i, picture in enumerate([noise, noise[::-1], noise[:61], noise[:, ::-1]]):  # the third of another size
        cv2.imwrite(str(tmp_path / f'{i}.png'), picture)
    seen = []
    for size in (1, 3):
        out = tmp_path / f'out{size}'
        options = '--out', out, '--batch-size', size, '--score', 0
        assert infer(config, checkpoint, tmp_path / '*.png', *options) == 0
        seen.append([numbers(json.loads((out / f'{i}.json').read_text())) for i in range(4)])
    for alone, together in zip(*seen):
        assert len(alone) > 2 and together == pytest.approx(alone, rel=2e-4, abs=2e-3)
    assert seen[0][0] != seen[0][1]


def test_a_video_frame_by_frame(model, photos, tmp_path):
    config, checkpoint, _ = model('mmpretrain')
    writer = cv2.VideoWriter(str(tmp_path / 'clip.avi'), cv2.VideoWriter_fourcc(*'MJPG'), 10, (128, 96))
    for i in range(7):
        writer.write(np.roll(cv2.imread(str(photos / 'a.png')), 10 * i, 0))
    writer.release()
    assert infer(config, checkpoint, tmp_path / 'clip.avi', '--every', 3, '--out', tmp_path / 'out') == 0
    told = json.loads((tmp_path / 'out/clip.json').read_text())
    assert [one['frame'] for one in told['frames']] == [0, 3, 6]
    drawn = cv2.VideoCapture(str(tmp_path / 'out/clip.mp4'))
    wanted = {
        cv2.CAP_PROP_FRAME_COUNT: 3,
        cv2.CAP_PROP_FPS: 10 / 3,
        cv2.CAP_PROP_FRAME_WIDTH: 256,
    }  # twice as large, to be read
    assert [drawn.get(key) for key in wanted] == pytest.approx([*wanted.values()], rel=1e-3)
    source = cv2.VideoCapture(str(tmp_path / 'clip.avi'))
    source.set(cv2.CAP_PROP_POS_FRAMES, 3)
    cv2.imwrite(str(tmp_path / 'frame.png'), source.read()[1])
    infer(config, checkpoint, tmp_path / 'frame.png', '--out', tmp_path / 'out')
    alone = json.loads((tmp_path / 'out/frame.json').read_text())['top']
    assert numbers(told['frames'][1]['top']) == pytest.approx(numbers(alone), rel=1e-5)
    (tmp_path / 'cut.mp4').write_bytes(b'no video')
    assert infer(config, checkpoint, tmp_path / 'cut.mp4', '--out', tmp_path / 'out') == 2


def test_a_folded_checkpoint_is_taken(model, photos, tmp_path):
    config, checkpoint, built = model('mmpretrain')
    picture = cv2.imread(str(photos / 'a.png'))
    plain = Predictor(Config.fromfile(config), checkpoint, 'cpu')
    save_folded(built, checkpoint)
    folded = Predictor(Config.fromfile(config), checkpoint, 'cpu')
    scores = [numbers(one([picture])[0].told) for one in (plain, folded)]
    assert scores[0] == pytest.approx(scores[1], rel=1e-6)


def test_an_interrupt_leaves_what_is_done(model, photos, tmp_path, monkeypatch, capsys):
    config, checkpoint, _ = model('mmpretrain')
    forward, calls = Predictor.forward, []

    def interrupted(self, batch):
        calls.append(batch)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return forward(self, batch)

    monkeypatch.setattr(Predictor, 'forward', interrupted)
    out = tmp_path / 'out'
    assert infer(config, checkpoint, photos / 'a.png', photos / 'b.jpg', photos / 'more', '--out', out) == 130
    assert {path.name for path in out.iterdir()} == {
        *('a.json', 'a.png', 'b.json', 'b.png', 'predictions.csv', 'index.html')
    }
    rows = [*csv.reader((out / 'predictions.csv').open())]
    assert [row[0] for row in rows] == ['file', str(photos / 'a.png'), str(photos / 'b.jpg')]
    top = json.loads((out / 'b.json').read_text())['top']
    assert [float(score) for score in rows[2][2::2]] == pytest.approx([one['score'] for one in top], abs=1e-6)
    assert 'It ended early: these are 2 of 3.' in (out / 'index.html').read_text()


@pytest.mark.parametrize(
    'options, message',
    [
        (['--device', 'tpu9'], "device 'tpu9' cannot be used here, where there is cpu"),
        (['--device', 'meta'], "device 'meta' cannot be used here, where there is cpu"),
        (['--batch-size', '0'], 'batch_size=0 must be a positive integer'),
        (['--every', '-1'], 'every=-1 must be a positive integer'),
        (['--score', '2'], 'score_threshold=2.0 must be a number in [0, 1]'),
        (['--out', '{photos}/a.png'], "output folder '{photos}/a.png' cannot be made: File exists"),
    ],
)
def test_options_that_cannot_be(model, photos, tmp_path, capsys, options, message):
    config, checkpoint, _ = model('mmpretrain')
    options = [one.format(photos=photos) for one in options]
    assert infer(config, checkpoint, photos / 'a.png', '--out', tmp_path / 'out', *options) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith(f'error: {message.format(photos=photos)}')


def test_checkpoints_of_something_else(model, photos, tmp_path, capsys, monkeypatch):
    words = photos / 'a.png', '--out', tmp_path / 'out'
    pytest.importorskip('mmseg')
    _, checkpoint, _ = model('mmseg')
    config = model.configs / 'classify_nfnet_nano_digits.py'
    assert infer(config, checkpoint, *words) == 2
    assert 'is not of this model: ' in capsys.readouterr().err
    assert infer(config, 'none', *words) == 2
    assert "error: checkpoint 'none' does not exist" in capsys.readouterr().err
    look = dependencies._look
    missing = dependencies._Found(None)
    monkeypatch.setattr(dependencies, '_look', lambda name: missing if name == 'mmpretrain' else look(name))
    assert infer(config, checkpoint, *words) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert 'mmpretrain is missing' in said and 'pip install' in said


def test_average_precision_of_the_files(tmp_path):
    """Of two objects one is found, by the higher of two scores: precision 1 up to recall 0.5, then 0."""
    pycocotools = pytest.importorskip('pycocotools.cocoeval')
    from pycocotools.coco import COCO

    boxes = [10.0, 20.0, 50.0, 40.0], [60.0, 60.0, 90.0, 90.0]
    found = [dict(label=1, name='b', score=0.9, box=boxes[0]), dict(label=1, name='b', score=0.8, box=[0, 0, 9, 9])]
    tables = Tables()
    tables.add('a.png', (96, 128), dict(objects=found))
    tables.write(tmp_path, ('a', 'b'))
    truth = json.loads((tmp_path / 'coco_images.json').read_text())
    truth['annotations'] = [
        dict(id=i, image_id=1, category_id=2, bbox=[x, y, x2 - x, y2 - y], area=(x2 - x) * (y2 - y), iscrowd=0)
        for i, (x, y, x2, y2) in enumerate(boxes, 1)
    ]
    (tmp_path / 'truth.json').write_text(json.dumps(truth))
    coco = COCO(tmp_path / 'truth.json')
    score = pycocotools.COCOeval(coco, coco.loadRes(str(tmp_path / 'coco_results.json')), 'bbox')
    score.evaluate(), score.accumulate(), score.summarize()
    assert score.stats[0] == pytest.approx(51 / 101)  # of 101 recalls, 0 to 0.5


@pytest.mark.parametrize('width', [390, pytest.param(1280, marks=pytest.mark.slow)])
def test_the_page_in_a_browser(model, photos, tmp_path, width):
    config, checkpoint, _ = model('depth')
    log = Path(checkpoint).parent / '20260101_000000/vis_data/scalars.json'
    log.parent.mkdir(parents=True)
    rows = [dict(loss=3 / (i + 1), lr=0.1, step=i + 1) for i in range(30)] + [dict(rel=0.2, step=30)]
    log.write_text('\n'.join(map(json.dumps, rows)))
    assert infer(config, checkpoint, photos, '--out', tmp_path / 'out') == 0
    page = tmp_path / 'out/index.html'
    seen = measure(page, width)
    assert seen['window'] == width and seen['width'] <= width
    assert len(seen['pictures']) == 3 and all(one[0] > 128 for one in seen['pictures'])
    assert len(seen['drawings']) == 2  # losses and rel
    text = page.read_text()
    digest = hashlib.sha256(Path(checkpoint).read_bytes()).hexdigest()
    assert 'losses: loss ends at 0.1' in text and digest in text and config in text
    assert re.search('Skipped, as it cannot be read: .*broken.png', text)
