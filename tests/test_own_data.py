"""One's own data: the settings that all else follows, and data that does not fit, in one line before training."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from mmengine import Config

from nfnet_mm import run
from nfnet_mm.analysis.launches import count_launches
from nfnet_mm.errors import UserError

ROOT = Path(__file__).parents[1]
CONFIGS = ROOT / 'configs'
LEAVES = sorted(path for path in CONFIGS.rglob('*.py') if '_base_' not in path.parts and 'depth_' not in path.name)
COCO = {'cat': 3, 'dog': 1, 'hen': 7}  # ids as files have them, in no order


def picture(path, value=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((8, 8), value, np.uint8))


@pytest.fixture
def classes(tmp_path):
    """Class folders of two splits."""
    for split in ('train', 'val'):
        for name in ('ant', 'bee', 'cow'):
            picture(tmp_path / split / name / '1.png')
    return tmp_path


@pytest.fixture
def coco(tmp_path):
    for split in ('train', 'val'):
        (tmp_path / split).mkdir()
        write_coco(tmp_path, split)
    return tmp_path


def write_coco(root, split, names=COCO, **changes):
    box = dict(id=1, image_id=1, bbox=[0, 0, 4, 4], area=16, iscrowd=0, segmentation=[[0, 0, 4, 0, 4, 4]])
    content = dict(
        images=[dict(id=1, file_name='1.png', width=64, height=64)],
        annotations=[dict(box, category_id=1, **changes)],
        categories=[dict(id=number, name=name) for name, number in names.items()],
    )
    (root / 'annotations').mkdir(exist_ok=True)
    (root / f'annotations/{split}.json').write_text(json.dumps(content))


def load(path, **options):
    return run.load_config(str(path), options)


def numbers(node):
    """Every ``num_classes`` in a config, wherever it is."""
    if isinstance(node, dict):
        found = [node['num_classes']] if 'num_classes' in node else []
        return found + [number for value in node.values() for number in numbers(value)]
    return [number for value in node for number in numbers(value)] if isinstance(node, (list, tuple)) else []


@pytest.mark.parametrize('path', [*LEAVES[::15], *CONFIGS.glob('finetune_*.py')], ids=lambda path: path.stem)
def test_one_setting_does_in_shipped_configs(path, tmp_path):
    """As an option and in a config that inherits; nothing keeps another number, and k is at most that."""
    mine = tmp_path / 'mine.py'
    mine.write_text(f"_base_ = '{path}'\nnum_classes = 3\n")
    for cfg in (load(path, num_classes=3), load(mine)):
        parts = (cfg.model, cfg.train_dataloader.get('collate_fn') or {})
        assert set(numbers(parts)) == {3}
        if cfg.default_scope == 'mmpretrain':
            assert cfg.model.head.topk == (1,) and (cfg.val_evaluator or cfg.model.head).topk == (1,)


@pytest.mark.slow
def test_every_leaf_states_what_can_follow():
    """The models whose number nothing could set would be found here; depth has none."""
    for path in LEAVES:
        assert run.model_classes(Config.fromfile(path)) is not None, path


def test_what_followed_is_said(capsys):
    load(CONFIGS / 'imagenet/nfnet_f0.py', num_classes=7)
    assert capsys.readouterr().out == (
        'num_classes=7 (was 1000): model.head, model.head.loss, train_dataloader.collate_fn\n'
    )
    load(CONFIGS / 'imagenet/nfnet_f0.py', num_classes=2)
    assert 'model.head.topk=(1,), ' in capsys.readouterr().out
    load(CONFIGS / 'imagenet/nfnet_f0.py', num_classes=1000)
    assert capsys.readouterr().out == ''  # it was so


@pytest.mark.parametrize('value', [0, -3, 2.5, 'ten', True])
def test_a_number_that_is_none(value):
    with pytest.raises(UserError, match='num_classes=.* must be a positive integer'):
        load(CONFIGS / 'imagenet/nfnet_f0.py', num_classes=value)


def test_depth_has_no_classes():
    with pytest.raises(UserError, match='num_classes=3: no head of this config states num_classes'):
        load(CONFIGS / 'depth_nf_resnet50_nyu.py', num_classes=3)


def test_heads_of_other_tasks_and_class_weights(tmp_path):
    """A boundary head's own number and a proposal network's stay; weights of all classes alike grow, others cannot."""
    config = tmp_path / 'a.py'
    text = (
        'model = dict(rpn_head=dict(num_classes=1), decode_head=[dict(num_classes=4), dict(num_classes=4, loss_decode='
        'dict(class_weight=[1.0, 1.0, 1.0, 1.0, 0.1]))], auxiliary_head=[dict(num_classes=2), dict(num_classes=4)])\n'
    )
    config.write_text(text)
    cfg = load(config, num_classes=3)
    assert numbers(cfg.model) == [1, 3, 3, 2, 3]
    assert cfg.model.decode_head[1].loss_decode.class_weight == [1.0, 1.0, 1.0, 0.1]
    config.write_text(text.replace('[1.0, 1.0, 1.0, 1.0, 0.1]', '[1.0, 2.0, 1.0, 1.0]'))
    with pytest.raises(UserError, match='decode_head.1.loss_decode.class_weight has 4 weights.*state 3 of them'):
        load(config, num_classes=3)


def test_k_of_boxes_stays(tmp_path):
    """PAA's candidates of an object have nothing to do with classes."""
    config = tmp_path / 'a.py'
    config.write_text("model = dict(bbox_head=dict(type='PAAHead', num_classes=80, topk=9))\n")
    assert load(config, num_classes=3).model.bbox_head == dict(type='PAAHead', num_classes=3, topk=9)


@pytest.mark.parametrize(
    'text',
    [
        "val_dataloader = [dict(dataset=dict(type='A', data_root='a')), dict(dataset=dict(type='B', data_root='b'))]",
        'train_dataloader = dict(dataset=None)\nval_evaluator = [None]',
        "val_evaluator = dict(type='Evaluator', metrics=[dict(type='CocoMetric')])",
    ],
)
def test_loaders_and_evaluators_of_other_loops_are_left_alone(text, tmp_path):
    config = tmp_path / 'a.py'
    config.write_text(f'model = dict(head=dict(num_classes=4))\ndata_root = "c"\n{text}\n')
    cfg = load(config, num_classes=3)
    run.check_data(cfg, ('train', 'val', 'test'))
    assert cfg.model.head.num_classes == 3


MMDET = (
    'faster_rcnn/faster-rcnn_r50_fpn_1x_coco',
    'cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco',
    'retinanet/retinanet_r50_fpn_1x_coco',
)


@pytest.mark.parametrize('name', MMDET)
def test_mmdet_s_own_configs_take_it_too(name, coco):
    mmdet = pytest.importorskip('mmdet')
    path = Path(mmdet.__file__).parent / f'.mim/configs/{name}.py'
    if not path.is_file():
        pytest.skip('installed without its configs')
    options = {'train_dataloader.dataset.ann_file': 'annotations/train.json'}
    cfg = run.load_config(str(path), dict(options, num_classes=3, data_root=str(coco)))
    assert set(numbers(cfg.model)) == {3}
    assert cfg.train_dataloader.dataset.metainfo.classes == ('cat', 'dog', 'hen')


def test_data_root_in_one_place(tmp_path):
    mine = tmp_path / 'mine.py'
    mine.write_text(f"_base_ = '{CONFIGS}/mask_rcnn_nfnet_f0_fpn.py'\ndata_root = 'other'\n")
    for cfg in (load(mine), load(CONFIGS / 'mask_rcnn_nfnet_f0_fpn.py', data_root='other')):
        assert cfg.train_dataloader.dataset.data_root == 'other/'
        assert cfg.test_evaluator.ann_file == 'other/annotations/instances_val2017.json'
    assert load(CONFIGS / 'mask_rcnn_nfnet_f0_fpn.py').train_dataloader.dataset.data_root == 'data/coco/'


FINE_TUNED = f"_base_ = '{CONFIGS}/finetune_nfnet_f0.py'\n"


@pytest.mark.parametrize(
    'text, setting, value',
    [
        (
            'val_dataloader = test_dataloader = train_dataloader = dict(dataset=dict(data_root="mine"))',
            'data_root',
            'mine',
        ),
        ('model = dict(head=dict(num_classes=5, loss=dict(num_classes=5)))', 'num_classes', 5),
        ("weights = 'a.pth'\n;model = dict(backbone=dict(init_cfg=dict(checkpoint='b.pth')))", 'weights', 'b.pth'),
    ],
)
def test_a_place_that_is_stated_later_is_kept(text, setting, value, tmp_path, capsys):
    """In a config that inherits the setting, as an option, and in a dump of such a config."""

    def held(cfg):
        if setting == 'weights':
            return cfg.model.backbone.init_cfg.checkpoint
        return cfg.train_dataloader.dataset.data_root if setting == 'data_root' else cfg.model.head.num_classes

    base, child, dump = (tmp_path / f'{name}.py' for name in ('base', 'child', 'dump'))
    before, _, after = text.rpartition(';')
    base.write_text(FINE_TUNED + before)
    child.write_text(f"_base_ = 'base.py'\n{after}\n")
    Config.fromfile(child).dump(dump)
    (tmp_path / 'last.py').write_text("_base_ = 'child.py'\n")
    for path in (child, dump, tmp_path / 'last.py'):
        assert held(load(path)) == value
        assert f'at the top level of the config is not followed: {value!r} is stated' in capsys.readouterr().out
    # and a setting that is made after it is followed
    (tmp_path / 'last.py').write_text(f"_base_ = 'child.py'\n{setting} = {3 if value == 5 else 'other'!r}\n")
    assert held(load(tmp_path / 'last.py')) in (3, 'other', 'other/')


def test_a_base_that_is_named_by_a_variable(tmp_path, monkeypatch):
    """Of mmengine's: the folder of the file, of the environment, and what a base holds."""
    monkeypatch.setenv('BASE', 'base')
    (tmp_path / 'base.py').write_text(f'{FINE_TUNED}number = 5\n')
    (tmp_path / 'a.py').write_text(
        "_base_ = '{{ fileDirname }}/{{$BASE:other}}.py'\nmodel = dict(head=dict(num_classes={{_base_.number}}))\n"
    )
    assert load(tmp_path / 'a.py').model.head.num_classes == 5
    (tmp_path / 'b.py').write_text("_base_ = '{{ fileDirname }}/{{$BASE:other}}.py'\nnum_classes = {{_base_.number}}\n")
    assert load(tmp_path / 'b.py').model.head.num_classes == 5


def test_an_option_for_one_place_is_kept(tmp_path):
    (tmp_path / 'a.py').write_text(f'{FINE_TUNED}num_classes = 7\n')
    assert load(tmp_path / 'a.py', **{'model.head.num_classes': 5}).model.head.num_classes == 5
    assert load(tmp_path / 'a.py').model.head.num_classes == 7


# classification


def classifier(root, num_classes=None, **options):
    given = {} if num_classes is None else dict(num_classes=num_classes)
    return load(CONFIGS / 'imagenet/nf_resnet50.py', data_root=str(root), **given, **options)


def test_class_folders_without_meta_files(classes):
    """The names are the folders', in the order of the labels, and the dataset builds with them."""
    pytest.importorskip('mmpretrain')
    from mmengine.registry import DATASETS

    cfg = classifier(classes, 3)
    run.check_data(cfg, ('train', 'val', 'test'))
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    assert dataset.metainfo['classes'] == ('ant', 'bee', 'cow') and len(dataset) == 3
    assert dataset.get_gt_labels().tolist() == [0, 1, 2]


def test_a_dataset_that_finds_its_labels_itself_is_left_alone(classes, tmp_path):
    """One of the user's own, on top of mmpretrain's: there is no folder of each class."""
    mmpretrain = pytest.importorskip('mmpretrain')
    shutil.rmtree(classes / 'train/ant')
    cfg = classifier(classes, 3)
    with pytest.raises(UserError, match='holds 2 class folders'):
        run.check_data(cfg, ('train',))

    class ByName(mmpretrain.datasets.CustomDataset):
        def load_data_list(self):
            return []

    cfg.train_dataloader.dataset.type = ByName
    run.check_data(cfg, ('train',))


def test_the_names_of_an_argument_stay(classes):
    """mmpretrain's ``classes``, beside which ``metainfo`` would win."""
    cfg = classifier(classes, 3, **{'train_dataloader.dataset.classes': ['A', 'B', 'C']})
    assert 'metainfo' not in cfg.train_dataloader.dataset


def test_lists_of_images_keep_working(classes):
    pytest.importorskip('mmpretrain')
    from mmengine.registry import DATASETS

    (classes / 'meta').mkdir()
    (classes / 'meta/train.txt').write_text('bee/1.png 0\nant/1.png 1\n')
    cfg = classifier(classes, 2)
    run.check_data(cfg, ('train',))
    assert DATASETS.build(cfg.train_dataloader.dataset).get_gt_labels().tolist() == [0, 1]


def no_folders(root):
    for folder in (root / 'train').iterdir():
        shutil.rmtree(folder)


def unchanged(root):
    pass


MISSING = "data folder '.*{}' does not exist.*set {}.*; docs/own_data_classification.md tells"
FOLDERS = [
    (
        unchanged,
        None,
        "train' holds 3 class folders .ant, bee, cow., and the model has 1000 classes: set num_classes=3",
    ),
    (unchanged, 4, "train' holds 3 class folders .* the model has 4 classes: set num_classes=3"),
    (lambda root: (root / 'train/bee/1.png').unlink(), 3, "class folder '.*train/bee' holds no image"),
    (lambda root: (root / 'val/bee').rename(root / 'val/fly'), 3, 'hold different class folders .bee, fly in one'),
    (lambda root: shutil.rmtree(root / 'val'), 3, MISSING.format('/val', 'val_dataloader.dataset.split')),
    (lambda root: shutil.rmtree(root), 3, MISSING.format('', 'train_dataloader.dataset.data_root')),
    (no_folders, 3, "train' holds no class folders"),
]


@pytest.mark.parametrize('break_it, number, message', FOLDERS)
def test_class_folders_that_do_not_fit(classes, break_it, number, message):
    pytest.importorskip('mmpretrain')
    break_it(classes)
    with pytest.raises(UserError, match=message):
        run.check_data(classifier(classes, number), ('train', 'val'))


def test_an_empty_folder_of_validation_is_a_class_without_images(classes):
    pytest.importorskip('mmpretrain')
    (classes / 'val/bee/1.png').unlink()
    run.check_data(classifier(classes, 3), ('train', 'val'))


@pytest.mark.parametrize('line, label', [('bee/1.png 3', '3'), ('bee/1.png -1', '-1'), ('bee/1.png', 'bee/1.png')])
def test_a_list_with_a_label_that_is_no_class(classes, line, label):
    pytest.importorskip('mmpretrain')
    (classes / 'meta').mkdir()
    (classes / 'meta/train.txt').write_text(f'ant/1.png 0\n{line}\n')
    with pytest.raises(UserError, match=f"line 2 of '.*meta/train.txt', '{line}', ends in the label '{label}'.*0 to 2"):
        run.check_data(classifier(classes, 3), ('train',))


# detection


def detector(root, **options):
    return load(CONFIGS / 'finetune_mask_rcnn_nfnet_f0.py', data_root=str(root), **options)


def test_the_classes_of_a_detector_are_its_file_s(coco):
    """In the file's order, which is that of mmdet's labels."""
    pytest.importorskip('mmdet')
    from mmengine.registry import DATASETS

    cfg = detector(coco, num_classes=3)
    run.check_data(cfg, ('train', 'val', 'test'))
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    assert dataset.metainfo['classes'] == ('cat', 'dog', 'hen')
    assert dataset.cat2label == {3: 0, 1: 1, 7: 2}


def test_a_detector_s_number_in_one_place_only(coco):
    """Without it, the names of COCO would drop every annotation; with another, the file has the word."""
    pytest.importorskip('mmdet')
    cfg = Config.fromfile(CONFIGS / 'mask_rcnn_nfnet_f0_fpn.py')
    own = dict(data_root=str(coco), ann_file='annotations/train.json', data_prefix=dict(img='train/'))
    cfg.train_dataloader.dataset.update(own)
    message = (
        r"train.json' has the categories cat, dog, hen; the dataset's type, CocoDataset, names 78 classes that are "
        'none .* num_classes=3 in the config'
    )
    with pytest.raises(UserError, match=message):
        run.check_data(cfg, ('train',))
    with pytest.raises(UserError, match='names 78 classes that are none .* num_classes=3'):
        run.check_data(detector(coco, num_classes=5), ('train',))


@pytest.mark.parametrize(
    'names, message',
    [
        (('cat', 'dgo', 'hen'), r"metainfo.classes names 1 classes that are none \(dgo\). Did you mean 'dog'\?"),
        (('dog', 'cat', 'hen'), "has 'dog' as class 0, and '.*train.json' has 'cat': .* in that order"),
        (('cat', 'hen'), 'gives 2 classes, and the model has 3: '),
    ],
)
def test_names_that_are_not_the_file_s(coco, names, message):
    pytest.importorskip('mmdet')
    cfg = detector(coco, **{'num_classes': 3, 'train_dataloader.dataset.metainfo': dict(classes=names)})
    with pytest.raises(UserError, match=message):
        run.check_data(cfg, ('train',))


@pytest.mark.parametrize('split', ['val', 'test'])
def test_files_that_order_their_categories_otherwise(coco, split):
    """mmdet numbers the classes of each file in its own order: a dog would be scored as a cat."""
    write_coco(coco, 'val', dict(dog=1, cat=3, hen=7))
    message = "val.json' has 'dog' as class 0, and the data of train_dataloader has 'cat': mmdet numbers classes in"
    with pytest.raises(UserError, match=message):
        run.check_data(detector(coco, num_classes=3), (split,))


def test_a_choice_of_categories_is_said(coco, capsys):
    pytest.importorskip('mmdet')
    cfg = detector(coco, **{'num_classes': 2, 'train_dataloader.dataset.metainfo': dict(classes=('cat', 'hen'))})
    capsys.readouterr()
    run.check_data(cfg, ('train',))
    assert 'train.json: the annotations of 1 categories are left out: dog' in capsys.readouterr().out


@pytest.mark.parametrize(
    'changes, message',
    [
        (dict(category_id=9), "annotation 1 of '.*train.json' has category_id=9, which is none of its categories"),
        (dict(segmentation=[]), "annotation 1 of '.*train.json' has no segmentation.*with_mask=False"),
    ],
)
def test_annotations_that_cannot_be_learnt(coco, changes, message):
    pytest.importorskip('mmdet')
    cfg = detector(coco, num_classes=3)
    path = coco / 'annotations/train.json'
    content = json.loads(path.read_text())
    content['annotations'][0].update(changes)
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=message):
        run.check_data(cfg, ('train',))


@pytest.mark.parametrize(
    'changes, message',
    [
        (dict(annotations=[]), 'none of its 1 images has an annotation'),
        (dict(images=[dict(id=1, file_name='1.png', width=64, height=31)]), 'is at least filter_cfg.min_size=32 px'),
    ],
)
def test_a_file_of_which_mmdet_would_leave_nothing(coco, changes, message):
    pytest.importorskip('mmdet')
    path = coco / 'annotations/train.json'
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(UserError, match=f"train.json' leaves nothing to train on: .*{message}"):
        run.check_data(detector(coco, num_classes=3), ('train',))


@pytest.mark.parametrize(
    'changes', [dict(ignore=1, category_id=0), dict(area=0), dict(bbox=[0, 0, 0.5, 4]), dict(bbox=[0, 0, 4, 0])]
)
def test_an_annotation_that_mmdet_passes_over_may_be_anything(coco, changes):
    path = coco / 'annotations/train.json'
    content = json.loads(path.read_text())
    content['annotations'].append({**content['annotations'][0], 'id': 2, 'segmentation': [], **changes})
    path.write_text(json.dumps(content))
    run.check_data(detector(coco, num_classes=3), ('train',))
    del content['annotations'][0]['area']
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match="annotation 1 of '.*train.json' has no area: mmdet needs"):
        run.check_data(detector(coco, num_classes=3), ('train',))


def test_class_names_in_a_file(coco):
    """As mmengine takes them."""
    names = coco / 'names.txt'
    names.write_text('cat\ndog\nhen\n')
    run.check_data(
        detector(coco, num_classes=3, **{'train_dataloader.dataset.metainfo': dict(classes=str(names))}), ('train',)
    )
    names.write_text('cat\ncow\nhen\n')
    with pytest.raises(UserError, match='names 1 classes that are none .cow.'):
        run.check_data(
            detector(coco, num_classes=3, **{'train_dataloader.dataset.metainfo': dict(classes=str(names))}), ('train',)
        )


def test_categories_of_a_file_too_large_to_parse(coco, monkeypatch):
    monkeypatch.setattr(run.coco_files, 'PARSE_LIMIT', 10)
    assert run.coco_files.coco_categories(str(coco / 'annotations/train.json')) == ['cat', 'dog', 'hen']


# segmentation


@pytest.fixture
def maps(tmp_path):
    for split in ('train', 'val'):
        for name in ('a', 'b'):
            picture(tmp_path / f'images/{split}/{name}.jpg')
            picture(tmp_path / f'annotations/{split}/{name}.png', 1)
    return tmp_path


def segmentor(root, num_classes=3, **options):
    return load(CONFIGS / 'finetune_fcn_nfnet_f0.py', data_root=str(root), num_classes=num_classes, **options)


def test_label_maps_get_names(maps):
    pytest.importorskip('mmseg')
    from mmengine.registry import DATASETS

    cfg = segmentor(maps)
    run.check_data(cfg, ('train', 'val', 'test'))
    assert DATASETS.build(cfg.val_dataloader.dataset).metainfo['classes'] == ('0', '1', '2')


def test_voc_s_folders_with_other_classes(tmp_path):
    cfg = load(CONFIGS / 'fcn_nf_resnet50_voc.py', num_classes=3)
    dataset = cfg.val_dataloader.dataset
    assert (dataset.type, dataset.metainfo.classes) == ('BaseSegDataset', ('0', '1', '2'))
    assert load(CONFIGS / 'fcn_nf_resnet50_voc.py', num_classes=21).val_dataloader.dataset.type == 'PascalVOCDataset'


BMP = {'train_dataloader.dataset.img_suffix': '.bmp'}
MAPS = [
    (
        lambda root: (root / 'annotations/train/b.png').unlink(),
        {},
        "1 of 2 images in '.*images/train' have no label map .* 'b.png'",
    ),
    (unchanged, BMP, r"train' holds 2 files \(.jpg\) and no .bmp image: set train_dataloader.dataset.img_suffix"),
    (lambda root: shutil.rmtree(root / 'annotations'), {}, "data folder '.*annotations/train' does not exist"),
]


@pytest.mark.parametrize('break_it, options, message', MAPS)
def test_label_maps_that_do_not_fit(maps, break_it, options, message):
    pytest.importorskip('mmseg')
    break_it(maps)
    with pytest.raises(UserError, match=message):
        run.check_data(segmentor(maps, **options), ('train',))


def test_links_and_hidden_files_are_taken_as_mmengine_does(maps, tmp_path):
    """A folder of images elsewhere, and what a file manager leaves behind."""
    (maps / 'images/train').rename(maps / 'elsewhere')
    (maps / 'images/train').mkdir()
    (maps / 'images/train/day').symlink_to(maps / 'elsewhere')
    (maps / 'annotations/train').rename(maps / 'maps')
    (maps / 'annotations/train').mkdir()
    (maps / 'annotations/train/day').symlink_to(maps / 'maps')
    picture(maps / 'elsewhere/._a.jpg')
    run.check_data(segmentor(maps), ('train',))


@pytest.mark.parametrize('name', ['fcn_nf_resnet50_voc', 'depth_nf_resnet50_nyu', 'mask_rcnn_nfnet_f0_fpn'])
def test_a_missing_data_folder_names_the_key_and_the_page(name):
    pytest.importorskip('mmseg')
    pytest.importorskip('mmdet')
    with pytest.raises(UserError, match=r"data folder 'data/.*' does not exist.*data_root=FOLDER; docs/\w+.md tells"):
        run.check_data(load(CONFIGS / f'{name}.py'), ('train',))


def test_a_missing_data_folder_is_shown_from_where_it_was_looked_for(classes, monkeypatch):
    pytest.importorskip('mmpretrain')
    monkeypatch.chdir(classes)
    config = CONFIGS / 'finetune_nfnet_f0.py'
    for root, there in (('train', 'ant, bee, cow'), ('nowhere', 'train, val')):
        missing = 'train/train' if root == 'train' else f'{root}/'
        folder = classes / 'train' if root == 'train' else classes
        with pytest.raises(UserError) as error:
            run.check_data(load(config, data_root=root, num_classes=3), ('train',))
        start = f"data folder '{missing}' does not exist, seen from '{classes}' (in '{folder}' there is {there}): set"
        assert str(error.value).startswith(start)
        assert str(error.value).endswith('how to lay out your own (train/CLASS/*.jpg, val/CLASS/*.jpg)')


# labels as they pass


def test_a_label_map_with_another_value(maps, run_tool, tmp_path):
    """255 is ignored; the file that holds 7 is named, in training and in validation."""
    pytest.importorskip('mmseg')
    picture(maps / 'annotations/train/a.png', 255)
    config = tmp_path / 'mine.py'
    config.write_text(
        f"_base_ = '{CONFIGS}/finetune_fcn_nfnet_f0.py'\ndata_root = '{maps}'\nnum_classes = 3\n"
        "model = dict(backbone=dict(arch='nano'), decode_head=dict(in_channels=128, channels=8), "
        'data_preprocessor=dict(size=(32, 32)))\n'
        "pipeline = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='PackSegInputs')]\n"
        'train_dataloader = dict(batch_size=2, num_workers=0, persistent_workers=False, dataset=dict(pipeline='
        'pipeline))\nval_dataloader = dict(num_workers=0, persistent_workers=False)\n'
        'train_cfg = dict(total_batch=2, max_epochs=1)\n'
    )
    for split in ('val', 'train'):
        picture(maps / f'annotations/{split}/b.png', 7)
        code, errors = run_tool('train', config, '--work-dir', tmp_path / split)
        last = errors.strip().splitlines()[-1]
        told = f"annotations/{split}/b.png' holds the label 7: with num_classes=3 labels are 0 to 2, "
        assert code == 2 and last.startswith('error: ') and told in last and last.endswith('or 255, which is ignored')


def test_a_dataset_of_other_classes_than_the_model(classes, run_tool, tmp_path):
    """As its metainfo names them, whatever its type."""
    pytest.importorskip('mmpretrain')
    (classes / 'list.txt').write_text('ant/1.png 0\n')
    config = tmp_path / 'mine.py'
    config.write_text(
        f"_base_ = '{CONFIGS}/finetune_nfnet_f0.py'\ndata_root = '{classes}'\nnum_classes = 3\n"
        "model = dict(backbone=dict(arch='nano'), head=dict(in_channels=256))\n"
        "own = dict(_delete_=True, type='CustomDataset', ann_file='list.txt', data_prefix='train', data_root=data_root,"
        " pipeline=_base_.test_pipeline, metainfo=dict(classes=('x', 'y')))\n"
        'train_dataloader = dict(dataset=own, batch_size=1)\nval_dataloader = dict(dataset=own)\n'
        'train_cfg = dict(total_batch=1, max_epochs=1)\n'
    )
    code, errors = run_tool('train', config, '--work-dir', tmp_path / 'run')
    last = errors.strip().splitlines()[-1]
    assert code == 2 and last.startswith(
        'error: the data of train_dataloader has 2 classes (x, y), and the model has 3'
    )


def test_a_label_beyond_the_classes_names_its_image():
    """As it passes, from whatever dataset: here two samples of a batch by hand."""
    pytest.importorskip('mmpretrain')
    from mmpretrain.models import ClsDataPreprocessor
    from mmpretrain.structures import DataSample

    check = run.labels._LabelCheck(classes=3, ignore=255)
    preprocessor = ClsDataPreprocessor()
    preprocessor.register_forward_pre_hook(check)
    samples = [DataSample(metainfo=dict(img_path=f'{i}.png')).set_gt_label(i) for i in (0, 2)]
    batch = dict(inputs=torch.zeros(2, 3, 4, 4), data_samples=samples)
    preprocessor(batch, training=True)
    samples[1].set_gt_label(3)
    with pytest.raises(UserError, match="'2.png' holds the label 3: with num_classes=3 labels are 0 to 2$"):
        preprocessor(batch, training=True)


def test_maps_of_two_classes_for_a_head_of_one_channel():
    """mmseg's head for a foreground by a sigmoid: 0 and 1 are labels of it; a head of two classes also may have it."""
    pytest.importorskip('mmseg')
    from mmseg.models import FCNHead

    for number, options in ((2, {}), (2, dict(out_channels=1)), (1, {})):
        head = FCNHead(in_channels=4, channels=4, num_classes=number, num_convs=0, concat_input=False, **options)
        assert run.labels._classes(head) == 2


def test_the_gallery_of_a_retrieval_is_no_list_of_classes():
    """Its labels are places in the gallery, of which there are more than classes."""
    pytest.importorskip('mmpretrain')
    from mmpretrain.models import ImageToImageRetriever

    model = ImageToImageRetriever(
        image_encoder=dict(type='mmpretrain.ResNet', depth=18),
        head=dict(type='mmpretrain.ArcFaceClsHead', num_classes=3, in_channels=512),
        prototype=torch.zeros(5, 512),
        data_preprocessor=dict(type='mmpretrain.ClsDataPreprocessor'),
    )
    assert run.labels.main_head(model).num_classes == 3
    run.labels._LabelHook().before_run(SimpleNamespace(model=model))
    assert not model.data_preprocessor._forward_pre_hooks


def test_a_map_with_ignored_pixels_is_looked_through_quickly():
    """Most maps have some; sorting their values, as ``torch.unique`` does, took 40 times as long as the bounds."""
    maps = torch.randint(0, 19, (1, 1024, 2048), generator=torch.Generator().manual_seed(0))
    maps[0, 0, 0] = 255
    check = run.labels._LabelCheck(classes=19, ignore=255)
    counts = count_launches(lambda: check._check(maps, (255,), 'a.png'))
    assert counts.operations and not any('unique' in name or 'sort' in name for name in counts.operations)
    assert any('unique' in name for name in count_launches(lambda: torch.unique(maps)).operations)


def test_an_error_of_a_loader_s_worker_is_one_line():
    from torch._utils import ExceptionWrapper

    try:
        raise UserError("'a.png' holds the label 9")
    except UserError:
        wrapped = ExceptionWrapper(where='in DataLoader worker process 0')
    with pytest.raises(UserError) as error:
        wrapped.reraise()
    assert str(error.value) == "'a.png' holds the label 9"
