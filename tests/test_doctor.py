"""The doctor, in processes whose packages are broken in the ways that happen."""

import json
import os
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LOOK = """
import json
from nfnet_mm import doctor
found = [one for look in {looks} for one in getattr(doctor, look)()]
print(json.dumps({{one.what: (one.level, one.said, one.fix) for one in found}}))
"""
HIDE = """
import sys
class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] in {names}:
            raise ModuleNotFoundError(f'No module named {{name!r}}', name=name)
sys.meta_path.insert(0, Hidden())
"""


@pytest.fixture
def look(tmp_path):
    """Findings of parts of the doctor, with a folder before the installed packages."""

    def ask(*looks):
        environment = {**os.environ, 'PYTHONPATH': f'{tmp_path}{os.pathsep}{ROOT}'}
        code = LOOK.format(looks=looks)
        done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return ask


def record(folder, distribution, version):
    """The metadata of a distribution, as an installation leaves it."""
    info = folder / f'{distribution.replace("-", "_")}-{version}.dist-info'
    info.mkdir()
    (info / 'METADATA').write_text(f'Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n')


def test_two_distributions_of_one_name(look, tmp_path):
    for distribution in ('mmengine', 'onedl-mmengine'):
        record(tmp_path, distribution, '0.10.7' if distribution == 'mmengine' else '0.10.12')
    level, said, fix = look('_packages')['mmengine']
    assert level == 'problem' and 'mmengine and onedl-mmengine are both installed and overwrite each other' in said
    assert 'pip uninstall -y onedl-mmengine mmengine && ' in fix


def test_missing_mmcv_names_what_it_stops(look, tmp_path):
    pytest.importorskip('mmdet')
    (tmp_path / 'sitecustomize.py').write_text(HIDE.format(names=('mmcv',)))
    found = look('_packages', '_operators')
    assert found['mmcv'][0] == 'note' and 'mmcv' in found['mmcv'][2]
    assert found['mmdet'][:2] == ['problem', 'mmcv is missing']
    assert re.search(r'pip install --no-cache-dir .*onedl-mmcv==|pip install .*mmcv-lite==', found['mmdet'][2])
    assert found['mmengine'][0] == 'ok' and "mmcv's operators" not in found


def test_missing_mmengine_is_a_problem(look, tmp_path):
    (tmp_path / 'sitecustomize.py').write_text(HIDE.format(names=('mmengine', 'mmdet')))
    found = look('_packages')
    assert found['mmengine'][:2] == ['problem', 'mmengine is missing']
    assert found['mmdet'][:2] == ['note', 'not installed']


def test_operators_that_do_not_load(look, tmp_path):
    (tmp_path / 'mmcv').mkdir()
    (tmp_path / 'mmcv/__init__.py').write_text('')
    (tmp_path / f'mmcv/_ext{sysconfig.get_config_var("EXT_SUFFIX")}').write_bytes(b'of another torch')
    level, said, fix = look('_operators')["mmcv's operators"]
    assert level == 'problem' and said.startswith('ImportError: ') and '_ext' in said
    assert '-m pip uninstall -y onedl-mmcv mmcv && MMCV_WITH_OPS=1 ' in fix


def test_an_import_that_crashes_is_told(look, tmp_path):
    (tmp_path / 'torch').mkdir()
    (tmp_path / 'torch/__init__.py').write_text('import os; os.kill(os.getpid(), 11)')
    assert look('_torch')['torch'][:2] == ['problem', 'ended with status -11']


@pytest.mark.slow
def test_gpus_that_torch_does_not_see(look, tmp_path, monkeypatch):
    """A driver older than torch's CUDA: the tool of the driver lists the card, torch has none."""
    pytest.importorskip('torch')
    tool = tmp_path / 'nvidia-smi'
    tool.write_text('#!/bin/sh\necho 470.1\necho 470.1\n')
    tool.chmod(0o755)
    monkeypatch.setenv('PATH', f'{tmp_path}{os.pathsep}{os.environ["PATH"]}')
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '')
    level, said, fix = look('_torch')['GPU']
    assert (
        level == 'problem' and said.startswith('2 here, and ') and 'NVIDIA driver (470.1)' in fix + said
    ) or 'CPU' in said


def test_a_folder_that_cannot_be_written_and_few_files(look, tmp_path, monkeypatch):
    """What the machine says is asked of the system, so the system's answers are replaced."""
    from nfnet_mm import doctor

    monkeypatch.setattr(doctor.os, 'access', lambda *_: False)
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    found = {one.what: one for one in doctor._disk()}
    assert found['disk, work_dirs'].level == 'problem' and '--work-dir' in found['disk, work_dirs'].fix
    assert found['disk, weights'].said == f'{tmp_path} cannot be written' and 'TORCH_HOME' in found['disk, weights'].fix
    monkeypatch.setattr('resource.getrlimit', lambda _: (256, 4096))
    assert next(doctor._limits()).fix == 'ulimit -n 4096'


@pytest.mark.parametrize(
    'hidden, status, last',
    [
        pytest.param((), 0, '0 problems: training can run', marks=pytest.mark.slow),
        (('torch', 'mmengine'), 1, 'problems: see the lines with ->'),
    ],
)
def test_the_command(tmp_path, hidden, status, last):
    """It speaks, and says by its status whether training can run, without torch and mmengine too."""
    pytest.importorskip('mmdet')
    (tmp_path / 'sitecustomize.py').write_text(HIDE.format(names=hidden))
    environment = {**os.environ, 'PYTHONPATH': f'{tmp_path}{os.pathsep}{ROOT}'}
    command = [sys.executable, '-m', 'nfnet_mm', 'doctor']
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert done.returncode == status, done.stdout + done.stderr
    assert done.stdout.rstrip().endswith(last) and ('mmengine is missing' in done.stdout) == bool(hidden)
