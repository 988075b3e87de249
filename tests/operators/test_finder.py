"""Which ``mmcv._ext`` Python finds, in made-up installations of mmcv, and what is said."""

import subprocess
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from importlib.util import module_from_spec

import pytest

from nfnet_mm import operators
from nfnet_mm.operators import finder, nms


@pytest.fixture
def mmcv(tmp_path):
    """The folder of a mmcv without operators."""
    (tmp_path / 'mmcv').mkdir()
    (tmp_path / 'mmcv/__init__.py').touch()
    return tmp_path / 'mmcv'


def load(folder):
    spec = finder.OperatorsFinder().find_spec('mmcv._ext', [str(folder)])
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_compiled_operators_go_first_and_nothing_is_said(mmcv, capsys):
    (mmcv / '_ext.py').write_text('nms = 1')
    assert load(mmcv).nms == 1
    assert capsys.readouterr().err == ''


@pytest.mark.parametrize('gpu, built_for', [(True, 'not available'), (True, '13.0'), (False, 'not available')])
def test_compiled_without_cuda_they_do_not_serve_a_gpu(mmcv, capsys, monkeypatch, gpu, built_for):
    (mmcv / '_ext.py').write_text(f'nms = voxel = 1\ndef get_compiling_cuda_version(): return {built_for!r}')
    monkeypatch.setattr('torch.cuda.is_available', lambda: gpu)
    module, ours = load(mmcv), gpu and built_for == 'not available'
    assert module.voxel == 1 and module.nms is (nms.nms if ours else 1)
    said = "mmcv's operators were compiled without CUDA, and there is a GPU: those of nfnet_mm.operators are used\n"
    assert capsys.readouterr().err == said * ours


def test_without_them_the_stand_in_is_loaded_and_says_so_in_one_line(mmcv, capsys):
    module = load(mmcv)
    assert module.nms is nms.nms and callable(module.no_such_operator)
    assert capsys.readouterr().err == (
        'mmcv has no compiled operators: those of nfnet_mm.operators are used, with the same results '
        '(`make ops` in a clone compiles them)\n'
    )


@pytest.mark.parametrize('variable', ['RANK', 'SLURM_PROCID'])
def test_one_process_of_several_says_it(mmcv, capsys, monkeypatch, variable):
    monkeypatch.setenv(variable, '1')
    load(mmcv)
    assert capsys.readouterr().err == ''


def test_compiled_operators_that_do_not_load_are_told_apart(mmcv):
    (mmcv / f'_ext{EXTENSION_SUFFIXES[0]}').write_bytes(b'\x7fELF of another machine')
    with pytest.raises(finder.BrokenOperators) as error:
        load(mmcv)
    text = str(error.value)
    assert '\n' not in text and str(mmcv) in text
    assert 'do not load with torch' in text and '`make ops`' in text and 'or delete that file' in text
    assert isinstance(error.value, ImportError)  # what guards an import catches it


def test_nothing_else_is_answered_for_and_twice_is_once():
    assert finder.OperatorsFinder().find_spec('mmcv.ops', None) is None
    before = list(sys.meta_path)
    operators.install()
    assert sys.meta_path == before  # conftest.py has installed it


STAND_IN = """
from nfnet_mm import operators
from nfnet_mm.operators import finder
operators.install()
finder.PathFinder = type('NoCompiledModule', (), dict(find_spec=staticmethod(lambda name, path: None)))
import mmcv.ops, mmdet.models, torch
from mmcv.utils import ext_loader
assert ext_loader.check_ops_exist()
assert mmcv.ops.get_compiler_version() == 'none (nfnet_mm.operators)'
from mmengine.utils.dl_utils import collect_env
collect_env()
features = torch.rand(1, 2, 8, 8, requires_grad=True)
for layer in (mmcv.ops.RoIAlign(2), mmcv.ops.RoIAlign(2, pool_mode='max'), mmcv.ops.RoIPool(2)):
    layer(features, torch.tensor([[0.0, 1, 1, 6, 6]])).sum().backward()
mmcv.ops.DeformConv2dPack(2, 2, 3)(features).sum().backward()
mmcv.ops.ModulatedDeformConv2dPack(2, 2, 3)(features).sum().backward()
assert features.grad.isfinite().all()
boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9], [0, 0, 10, 8.5]])
scores, classes = torch.tensor([0.5, 0.9, 0.7]), torch.tensor([0, 0, 1])
for kind in ('nms', 'soft_nms'):
    dets, kept = mmcv.ops.batched_nms(boxes, scores, classes, dict(type=kind, iou_threshold=0.5))
    print(kind, kept.tolist())
try:
    mmcv.ops.box_iou_rotated(torch.rand(1, 5), torch.rand(1, 5))
except ValueError as error:
    print(error)
"""


def test_mmcv_s_wrappers_and_mmdet_work_on_the_stand_in():
    pytest.importorskip('mmdet')
    done = subprocess.run([sys.executable, '-c', STAND_IN], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    hard, soft, refused = done.stdout.strip().splitlines()[-3:]
    assert hard == 'nms [1, 2]' and soft == 'soft_nms [1, 2, 0]'
    assert refused.startswith("mmcv's operator 'box_iou_rotated' has no stand-in and must be compiled: ")
    assert done.stderr.count('mmcv has no compiled operators') == 1
