"""Imports run downward only, and the core needs torch and mmengine alone."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import nfnet_mm

PACKAGE = Path(nfnet_mm.__file__).parent
HEAVY = ('mmcv', 'mmdet', 'mmseg', 'mmpretrain', 'timm', 'cv2')

CORE = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] in {heavy}:
            raise ModuleNotFoundError('No module named ' + repr(name), name=name)
sys.meta_path.insert(0, Block())
import torch
import nfnet_mm, nfnet_mm.models.layers, nfnet_mm.engine, nfnet_mm.converters
from mmengine.registry import MODELS, OPTIM_WRAPPERS
from mmengine.optim import build_optim_wrapper
for cfg in (dict(type='nfnet_mm.NFNet', arch='nano'), dict(type='nfnet_mm.NFResNet', depth=26),
            dict(type='nfnet_mm.NFRegNet', arch='B0')):
    model = MODELS.build(cfg)
wrapper = build_optim_wrapper(model, dict(
    type='nfnet_mm.AGCOptimWrapper', constructor='nfnet_mm.NFOptimWrapperConstructor',
    optimizer=dict(type='SGD', lr=0.1, weight_decay=2e-5), agc=dict(clipping=0.01, eps=1e-3)))
loss = sum(f.square().mean() for f in model(torch.randn(1, 3, 64, 64)))
wrapper.update_params(loss)
try:
    MODELS.build(dict(type='nfnet_mm.NFClsHead', num_classes=2, in_channels=3))
except ImportError as error:
    assert 'mmpretrain' in str(error) and 'pip install' in str(error), error
else:
    raise AssertionError('NFClsHead without mmpretrain')
print('core works')
"""


def test_core_without_the_rest_of_the_stack():
    run = subprocess.run([sys.executable, '-c', CORE.format(heavy=HEAVY)], capture_output=True, text=True)
    assert 'core works' in run.stdout, run.stderr


def imports(path):
    """The absolute names of what a module imports, its own package resolved."""
    package = path.relative_to(PACKAGE.parent).with_suffix('').parts
    package = package[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            yield '.'.join([*base, *filter(None, [node.module])])


MODULES = sorted(PACKAGE.rglob('*.py'))


@pytest.mark.parametrize('path', MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_rooms(path):
    room = path.relative_to(PACKAGE).parts
    for name in imports(path):
        top = name.partition('.')[0]
        assert top != 'mmdet', f'{path}: no room touches mmdet'
        if top == 'mmpretrain':
            assert room[:2] == ('tasks', 'classification'), f'{path} imports {name}'
        if top == 'mmseg':
            assert room[:2] in (('tasks', 'depth'), ('tasks', 'segmentation')), f'{path} imports {name}'
        if room[0] == 'engine':
            assert not name.startswith('nfnet_mm.models'), f'{path}: the engine never imports models'
        if room[0] in ('models', 'engine', 'registry.py'):
            assert not name.startswith(('nfnet_mm.tasks', 'nfnet_mm.analysis', 'nfnet_mm.deploy')), f'{path}: {name}'
        if room[:2] == ('models', 'layers'):
            assert not name.startswith('nfnet_mm.models.backbones'), f'{path}: {name}'
