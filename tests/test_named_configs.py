"""Configs by name, on a command line and as ``_base_``; what is installed is the real thing, or folders made here."""

import importlib.machinery
import shutil
from pathlib import Path

import pytest
from mmengine import Config

from nfnet_mm import run
from nfnet_mm.errors import UserError
from nfnet_mm.named_configs import config_folder, find_config
from nfnet_mm.read_config import read_config

ROOT = Path(__file__).parents[1]


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """An empty folder as the current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize('name', ['mask_rcnn_nfnet_f0_fpn.py', 'mask_rcnn_nfnet_f0_fpn'])
@pytest.mark.parametrize('scope', ['nfnet_mm::', ''])
def test_our_configs_by_name(elsewhere, scope, name):
    cfg = run.load_config(scope + name)
    assert cfg.work_dir == 'work_dirs/mask_rcnn_nfnet_f0_fpn'
    assert cfg.model == Config.fromfile(ROOT / 'configs/mask_rcnn_nfnet_f0_fpn.py').model
    assert find_config('nfnet_mm::imagenet/nfnet_f0.py').path.samefile(ROOT / 'configs/imagenet/nfnet_f0.py')


def test_a_clone_without_links(tmp_path, monkeypatch):
    """On a file system without them git writes small files in their place."""
    package = tmp_path / 'nfnet_mm'
    (package / '.mim').mkdir(parents=True)
    for name in ('__init__.py', '.mim/configs'):
        (package / name).write_text('../../configs')
    shutil.copytree(ROOT / 'configs', tmp_path / 'configs')
    shutil.copy(ROOT / 'model-index.yml', tmp_path)
    here = importlib.machinery.PathFinder.find_spec('nfnet_mm', [str(tmp_path)])
    monkeypatch.setattr('nfnet_mm.named_configs.find_spec', lambda name: here)
    source = find_config('nfnet_mm::mask_rcnn_nfnet_f0_fpn.py')
    assert (source.path, source.base) == (tmp_path / 'configs/mask_rcnn_nfnet_f0_fpn.py', None)


@pytest.mark.parametrize(
    'name, message',
    [
        ('mmyolo::x.py', "config 'mmyolo::x.py': no package 'mmyolo' is installed"),
        ('mmengine::x.py', "config 'mmengine::x.py': package 'mmengine' ships no configs"),
        ('../x::y.py', "config '../x::y.py': no package '../x' is installed"),
        (
            'nfnet_mm::imagenet/nfnet_f9.py',
            "config 'nfnet_mm::imagenet/nfnet_f9.py' does not exist: package 'nfnet_mm' ships no such file; did you "
            "mean 'nfnet_mm::imagenet/nfnet_f",
        ),
        ('configs/none.py', "config 'configs/none.py' does not exist; in '.': nothing there has a like name"),
        ('xyzzy', "config 'xyzzy' does not exist: it is no file here, nor one that a package ships; none has a like"),
        ('own_f1.py', "config 'own_f1.py' does not exist; in '.': did you mean 'own_f0.py'?"),
    ],
)
def test_what_is_not_there(elsewhere, name, message):
    (elsewhere / 'own_f0.py').write_text('')
    with pytest.raises(UserError) as caught:
        find_config(name)
    assert str(caught.value).startswith(message)


def test_a_beginning_suggests_what_goes_on_from_it(elsewhere):
    pytest.importorskip('mmdet')
    with pytest.raises(UserError, match="did you mean 'mmdet::mask_rcnn/mask-rcnn_r50_fpn_[12]x_coco.py'"):
        find_config('mask-rcnn_r50_fpn')


def test_a_name_of_two_is_refused(elsewhere, monkeypatch):
    for folder in ('a', 'b'):
        (elsewhere / 'configs' / folder).mkdir(parents=True)
        (elsewhere / 'configs' / folder / 'same.py').write_text('')
    monkeypatch.setattr(
        'nfnet_mm.named_configs.config_folder', lambda scope: elsewhere / 'configs' if scope == 'mmdet' else None
    )
    with pytest.raises(UserError, match="config 'same' is the name of 2: mmdet::a/same.py, mmdet::b/same.py; name one"):
        find_config('same')


@pytest.mark.parametrize(
    'package, base, type_, line',
    [
        ('mmseg', 'mmseg::fcn/fcn_r50-d8_4xb2-40k_cityscapes-512x1024.py', 'EncoderDecoder', True),
        ('mmdet', 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py', 'RetinaNet', False),
        ('mmpretrain', 'mmpretrain::resnet/resnet50_8xb32_in1k.py', 'ImageClassifier', False),
        ('nfnet_mm', 'nfnet_mm::mask_rcnn_nfnet_f0_fpn.py', 'MaskRCNN', True),
    ],
)
def test_every_scope_as_base(elsewhere, capsys, package, base, type_, line):
    """Here, and with the line that is said to work in every tool by mmengine alone."""
    pytest.importorskip(package)
    if package == 'mmseg':
        from importlib.metadata import distributions

        line = not any(one.name == 'mmsegmentation' for one in distributions())
    file = elsewhere / 'own.py'
    file.write_text(f'_base_ = [{base!r}]\n')
    cfg = read_config(file)
    said = capsys.readouterr().out
    assert cfg.model.type == type_ and cfg.default_scope == (package if package != 'nfnet_mm' else 'mmdet')
    assert cfg.model.get('_scope_') == (package if package != 'nfnet_mm' else 'mmdet')
    assert bool(said) == line
    if line:
        assert f'{file}: _base_ {base!r} works in this package only' in said
        file.write_text(said.partition('in every tool works ')[2])
        assert Config.fromfile(file).model.type == type_


def test_a_missing_base_is_one_line_with_near_names(elsewhere):
    pytest.importorskip('mmdet')
    (elsewhere / 'own.py').write_text("_base_ = 'mmdet::retinanet/retinanet_r5_fpn_1x_coco.py'\n")
    with pytest.raises(
        UserError, match="package 'mmdet' ships no such file; did you mean 'mmdet::retinanet/retinanet_r50"
    ):
        run.load_config(str(elsewhere / 'own.py'))


def test_mmengine_is_as_it_was_afterwards(elsewhere):
    before = Config.__dict__['_get_cfg_path'].__func__
    (elsewhere / 'own.py').write_text("_base_ = 'mmyolo::x/x.py'\n")
    with pytest.raises(UserError):
        read_config(elsewhere / 'own.py')
    assert Config.__dict__['_get_cfg_path'].__func__ is before


def test_every_config_of_the_index_is_shipped():
    import yaml

    folder = config_folder('nfnet_mm').parent
    files = yaml.safe_load((folder / 'model-index.yml').read_text())['Import']
    models = [model for file in files for model in yaml.safe_load((folder / file).read_text())['Models']]
    assert len(models) > 80 and [model['Config'] for model in models if not (folder / model['Config']).is_file()] == []
