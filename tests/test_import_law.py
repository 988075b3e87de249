"""Imports run downward only, and the core needs torch and mmengine alone."""

import ast
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import nfnet_mm

PACKAGE = Path(nfnet_mm.__file__).parent
ROOT = Path(__file__).parents[1]
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


# From the ground up. What stands in one line is side by side: none of it imports another of that line.
LAYERS = (
    ('errors', 'dependencies'),
    ('cpu_kernels', 'html_page', 'named_configs', 'operators', 'pack', 'registry', 'triton_launch'),
    ('doctor', 'read_config'),
    ('models.layers', 'engine'),
    ('models.backbones',),
    ('recipes', 'models'),
    ('converters',),
    ('analysis', 'config_files', 'deploy'),
    ('swap', 'run'),
    ('clipping_sweep', 'inference', 'signal_models', 'training_cost'),
    ('benchmark',),
    ('tasks.classification', 'tasks.segmentation', 'tasks.depth'),
    ('tasks',),
    ('commands',),
    ('__main__',),
)
FRAMEWORKS = {  # who may import which
    'mmdet': (),
    'mmpretrain': ('tasks.classification',),
    'mmseg': ('tasks.segmentation', 'tasks.depth'),
    'mmcv': ('tasks.classification', 'tasks.segmentation', 'tasks.depth'),
}
MODULES = {
    '.'.join(path.relative_to(PACKAGE).with_suffix('').parts).removesuffix('__init__').rstrip('.'): path
    for path in sorted(PACKAGE.rglob('*.py'))
}


def imports(module):
    """The absolute names of what a module of the package imports, anywhere in it."""
    path = MODULES[module]
    package = path.relative_to(PACKAGE.parent).parts[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = '.'.join(
                [*(package[: len(package) - node.level + 1] if node.level else ()), *filter(None, [node.module])]
            )
            for alias in node.names:  # a module, or a name in one
                yield f'{base}.{alias.name}' if f'{base}.{alias.name}'.removeprefix('nfnet_mm.') in MODULES else base


def layer(module):
    """(place from the ground, folder or file) of a module of the package."""
    found = [(i, name) for i, names in enumerate(LAYERS) for name in names if f'{module}.'.startswith(f'{name}.')]
    assert found, f'{module} stands in no layer: LAYERS says where a new folder belongs'
    return max(found, key=lambda entry: len(entry[1]))


@pytest.mark.parametrize('module', sorted(set(MODULES) - {''}))
def test_imports_run_downward(module):
    place, folder = layer(module)
    for name in imports(module):
        top, _, inside = name.partition('.')
        assert folder in FRAMEWORKS.get(top, (folder,)), f'{module} imports {name}'
        assert top not in ('tools', 'tests', 'demo'), f'{module} imports {name}'
        if top == 'nfnet_mm' and inside:
            below, other = layer(inside)
            assert below < place or other == folder, f'{module} imports {name}, which is not below it'


def test_no_module_is_imported_by_what_it_imports():
    graph = {}
    for module in set(MODULES) - {''}:
        names = {name.removeprefix('nfnet_mm.') for name in imports(module) if name.startswith('nfnet_mm.')}
        # a package's own modules are imported by its __init__ file, and read names from their siblings
        graph[module] = {name for name in names if name in MODULES and name != module}
    TopologicalSorter(graph).prepare()  # raises CycleError with the circle


def test_the_page_draws_every_layer():
    drawing = re.search(r'```text\n(.*?)```', (ROOT / 'docs/architecture.md').read_text(), re.S)[1]
    drawn = [name.replace('/', '.') for name in re.findall(r'^nfnet_mm/([\w/]+?)(?:\.py|/)?\s', drawing, re.M)]
    assert drawn == [
        name for names in reversed(LAYERS) for name in sorted(names) if name not in ('tasks', '__main__')
    ], 'from the top down'
