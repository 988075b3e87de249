"""The wheel and the sdist, built and used as a user would: in an environment of their own, from an empty folder."""

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]
pytest.importorskip('setuptools')
pytest.importorskip('wheel')
SOURCES = (
    'nfnet_mm',
    'configs',
    'tools',
    'docs',
    'demo',
    'requirements',
)  # and files, but not the tests and their data
BUILD = "import sys, setuptools.build_meta as b; getattr(b, f'build_{sys.argv[1]}')(sys.argv[2])"


def files(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob('*') if path.is_file()}


def build(source, kind, target):
    target.mkdir(exist_ok=True)
    done = subprocess.run([sys.executable, '-c', BUILD, kind, target], cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return next(target.glob('*.whl' if kind == 'wheel' else '*.tar.gz'))


@pytest.fixture(scope='module')
def source(tmp_path_factory):
    """A copy of the working tree, with its links, to see that a build leaves it as it was."""
    copy = tmp_path_factory.mktemp('source') / 'nfnet_mm'
    copy.mkdir()
    for path in ROOT.iterdir():
        if path.name in SOURCES:
            ignored = shutil.ignore_patterns('__pycache__')
            shutil.copytree(path, copy / path.name, symlinks=True, ignore=ignored)
        elif path.is_file() and path.name != '.git':
            shutil.copy(path, copy)
    return copy


@pytest.fixture(scope='module')
def wheel(source, tmp_path_factory):
    before = files(source)
    built = build(source, 'wheel', tmp_path_factory.mktemp('dist'))
    assert files(source) == before
    return built


@pytest.fixture(scope='module')
def installed(wheel, tmp_path_factory):
    """An environment with the wheel that sees what is installed here, as ``call(*command) -> (status, text)``."""
    folder = tmp_path_factory.mktemp('environment')
    subprocess.run([sys.executable, '-m', 'venv', '--without-pip', folder / 'venv'], check=True)
    site = Path(sysconfig.get_path('purelib', vars=dict(base=str(folder / 'venv'))))
    (site / 'shared.pth').write_text(sysconfig.get_path('purelib') + '\n')
    command = [sys.executable, '-m', 'pip', 'install', '-q', '--no-deps', '--no-index', '--disable-pip-version-check']
    python = folder / 'venv/bin/python'
    # pip of the running interpreter, for the other one
    subprocess.run([*command[:3], '--python', python, *command[3:], wheel], check=True)
    empty = folder / 'empty'
    empty.mkdir()

    def call(*words):
        environment = {key: value for key, value in os.environ.items() if key != 'PYTHONPATH'}
        words = (
            [str(python), '-m', 'nfnet_mm', *words[1:]]
            if words[0] == 'nfnet_mm'
            else [str(python.parent / words[0]), *words[1:]]
        )
        done = subprocess.run(words, cwd=empty, env=environment, capture_output=True, text=True)
        return done.returncode, done.stdout + done.stderr

    call.folder, call.site = empty, site
    return call


def test_the_wheel_has_what_its_siblings_have(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    shipped = {name.removeprefix('nfnet_mm/.mim/') for name in names if '.mim' in name}
    configs = {str(path.relative_to(ROOT)) for path in (ROOT / 'configs').rglob('*') if path.suffix in ('.py', '.yml')}
    tools = {f'tools/{name}' for name in ('train.py', 'test.py', 'dist_train.sh', 'dist_test.sh', 'slurm_train.sh')}
    assert len(configs) > 170 and configs | tools | {'model-index.yml'} <= shipped
    assert not [name for name in shipped if 'write_configs' in name or 'set_up' in name], 'what needs a clone'
    assert not [name for name in names if name.startswith(('tests', 'demo', 'build'))]


def test_an_sdist_builds_the_same_wheel(source, wheel, tmp_path):
    before = files(source)
    packed = build(source, 'sdist', tmp_path / 'sdist')
    assert files(source) == before
    with tarfile.open(packed) as archive:
        archive.extractall(tmp_path, filter='data')
    unpacked = next(path for path in tmp_path.iterdir() if path.name.startswith('nfnet_mm-'))
    again = zipfile.ZipFile(build(unpacked, 'wheel', tmp_path / 'wheel'))
    assert sorted(again.namelist()) == sorted(zipfile.ZipFile(wheel).namelist())


def test_commands_without_a_clone(installed):
    code, said = installed('nfnet-mm')
    assert code == 0 and said.startswith('usage: python -m nfnet_mm COMMAND')
    code, said = installed('nfnet_mm', 'train', 'mask_rcnn_nfnet_f1')
    assert code == 2 and "did you mean 'nfnet_mm::mask_rcnn_nfnet_f1_fpn.py'" in said


@pytest.mark.slow
def test_train_swap_convert_and_cost_without_a_clone(installed):
    pytest.importorskip('mmdet')
    code, said = installed('nfnet_mm', 'train', 'nfnet_mm::mask_rcnn_nfnet_f0_fpn.py')
    assert code == 2 and "annotations/instances_train2017.json' does not exist" in said, said
    code, said = installed(
        'nfnet_mm', 'swap', 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py', '--backbone', 'nfnet_f0'
    )
    assert code == 0 and (installed.folder / 'retinanet_nfnet_f0_fpn_1x_coco.py').is_file(), said

    from nfnet_mm.registry import MODELS

    backbone = MODELS.build(dict(type='NFNet', arch='timm/test_nfnet', out_indices=(4,)))
    head = {'head.fc.weight': torch.zeros(1000, backbone.out_channels[-1]), 'head.fc.bias': torch.zeros(1000)}
    torch.save(
        {**{f'backbone.{key}': value for key, value in backbone.state_dict().items()}, **head},
        installed.folder / 'ours.pth',
    )
    code, said = installed('nfnet_mm', 'convert', 'ours.pth', 'timm.safetensors', '--to', 'timm')
    assert code == 0 and (installed.folder / 'timm.safetensors').is_file(), said

    words = ('cost', 'nf_resnet50_unregularised', '--batch-size', '1', '--size', '64', '64', '--pairs', '1')
    code, said = installed('nfnet_mm', *words)
    assert code == 0 and re.search(r'^parameters \(M\) +25\.5', said, re.M) and 'Median of 1 steps' in said, said
    code, said = installed('nfnet_mm', 'doctor')
    assert code == 0 and 'training can run' in said, said


@pytest.mark.slow
def test_the_last_mile_without_a_clone(installed, tmp_path):
    """A demo's checkpoint and the config that its training wrote, on two of its pictures: predicted, and exported."""
    for package in ('mmpretrain', 'onnx', 'onnxruntime'):
        pytest.importorskip(package)
    short = 'train_cfg.max_iters=2', 'train_cfg.val_interval=2', 'default_hooks.logger.interval=1'
    words = [
        ROOT / 'demo',
        'classification',
        '--data',
        tmp_path / 'data',
        '--work-dir',
        tmp_path / 'run',
        '--train',
        '80',
    ]
    made = subprocess.run(
        [sys.executable, *words, '--val', '20', '--cfg-options', *short], capture_output=True, text=True
    )
    assert made.returncode == 0, made.stderr
    for name, picture in zip(('one.png', 'two.png'), sorted((tmp_path / 'data/val').rglob('*.png'))[::15]):
        shutil.copy(picture, installed.folder / name)
    config, checkpoint = tmp_path / 'run/classify_nfnet_nano_digits.py', tmp_path / 'run/iter_2.pth'
    code, said = installed('nfnet_mm', 'infer', config, checkpoint, 'one.png', 'two.png', '--out', 'found')
    assert code == 0 and '2 images predicted: pictures, JSON and index.html in found' in said, said
    rows = (installed.folder / 'found/predictions.csv').read_text().splitlines()
    assert [row.partition(',')[0] for row in rows] == ['file', 'one.png', 'two.png']
    assert 'losses: loss ends at' in (installed.folder / 'found/index.html').read_text()

    code, said = installed('nfnet_mm', 'export', config, checkpoint, 'digits.onnx', '--with-preprocessing')
    assert code == 0 and 'digits.onnx: worst relative difference' in said, said
    shutil.copy(installed.folder / 'one.png', installed.folder / 'photo.png')
    script = re.search(r'```python\n(import onnxruntime.*?)```', (ROOT / 'docs/export.md').read_text(), re.S)[1]
    assert len(script.split('\n\n')) == 2 and len(script.replace('\n\n', '\n').splitlines()) <= 10
    (installed.folder / 'script.py').write_text(
        "import sys\nfor name in ('torch', 'nfnet_mm', 'mmengine'):\n    sys.modules[name] = None\n" + script
    )
    code, said = installed('python', 'script.py')
    name, score = said.splitlines()[-1].split()
    first = json.loads((installed.folder / 'found/one.json').read_text())['top'][0]
    assert code == 0 and name == first['name'] and float(score) == pytest.approx(first['score'], rel=1e-4), said
