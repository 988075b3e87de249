"""What is installed is made of real metadata folders on sys.path, in a process that sees nothing else."""

import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ALL = ('mmengine', 'mmcv', 'mmdet', 'mmseg', 'mmpretrain')
IMPORT_NAMES = {
    'mmcv-lite': 'mmcv',
    'onedl-mmdetection': 'mmdet',
    'mmsegmentation': 'mmseg',
    'onedl-mmsegmentation': 'mmseg',
}
ONEDL = {
    'onedl-mmengine': '0.10.12',
    'onedl-mmcv': '2.3.6',
    'onedl-mmdetection': '3.5.1',
    'onedl-mmsegmentation': '1.4.2',
    'onedl-mmpretrain': '1.3.6',
}
ORIGINALS = {'mmengine': '0.10.7', 'mmcv': '2.1.0', 'mmdet': '3.3.0', 'mmsegmentation': '1.2.2', 'mmpretrain': '1.2.0'}
RUN = """
import importlib.util, json, sys
sys.path = [{site!r}] + [p for p in sys.path if 'site-packages' not in p]
spec = importlib.util.spec_from_file_location('dependencies', {file!r})
module = importlib.util.module_from_spec(spec)
sys.modules['dependencies'] = module
spec.loader.exec_module(module)
try:
    print(json.dumps(module.require(*{names!r})))
except ImportError as error:
    print(json.dumps(str(error)))
assert not [m for m in sys.modules if m.startswith(('mm', 'torch'))], 'something heavy was imported'
"""


@pytest.fixture
def ask(tmp_path):
    def run(names, installed, operators=True):
        for distribution, version in installed.items():
            info = tmp_path / f'{distribution.replace("-", "_")}-{version}.dist-info'
            info.mkdir()
            (info / 'METADATA').write_text(f'Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n')
            package = tmp_path / IMPORT_NAMES.get(distribution, distribution.replace('onedl-', ''))
            package.mkdir(exist_ok=True)
            (package / '__init__.py').write_text('raise SystemExit("nothing may be imported")')
            if package.name == 'mmcv' and operators:
                (package / '_ext.cpython-311-x86_64-linux-gnu.so').write_bytes(b'')
        code = RUN.format(site=str(tmp_path), file=str(ROOT / 'nfnet_mm/dependencies.py'), names=tuple(names))
        done = subprocess.run([sys.executable, '-I', '-c', code], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


@pytest.mark.parametrize('installed', [{**ONEDL, 'torch': '2.11.0+cu130'}, {**ORIGINALS, 'torch': '2.1.2'}])
def test_each_known_good_set_passes(ask, installed):
    assert ask(ALL, installed) is None


def test_core_needs_mmengine_alone(ask):
    assert ask(['mmengine'], {'torch': '2.11.0', 'onedl-mmengine': '0.10.12'}) is None


def test_nothing_installed_names_all_and_one_family(ask):
    message = ask(['mmdet'], {'torch': '2.11.0+cu130'})
    problem, found, command = message.split('\n')
    assert problem == 'nfnet_mm needs mmdet here: mmengine is missing; mmcv is missing; mmdet is missing.'
    assert found == (
        'Found: torch 2.11.0+cu130, mmengine missing, mmcv missing, mmdet missing, mmseg missing, mmpretrain missing.'
    )
    pip = f'{sys.executable} -m pip'
    assert command == (
        f'Run: {pip} install "setuptools>=80,<82" wheel && '
        f'MMCV_WITH_OPS=0 {pip} install --no-cache-dir onedl-mmcv==2.3.6 && '
        f'{pip} install --no-build-isolation onedl-mmengine==0.10.12 onedl-mmdetection==3.5.1'
    )


def test_only_what_is_missing_is_installed(ask):
    installed = {k: v for k, v in ONEDL.items() if k != 'onedl-mmpretrain'}
    command = ask(['mmpretrain'], {**installed, 'torch': '2.11.0'}).split('\n')[2]
    assert command.endswith('install --no-build-isolation onedl-mmpretrain==1.3.6')
    assert 'mmcv' not in command and 'uninstall' not in command


def test_mmcv_without_operators_will_do(ask):
    """nfnet_mm.operators stand in for them."""
    assert ask(ALL, {**ONEDL, 'torch': '2.15.0'}, operators=False) is None


LITE = {('mmcv-lite' if name == 'mmcv' else name): version for name, version in ORIGINALS.items()}


def test_the_original_mmcv_without_operators_has_another_name(ask):
    assert ask(ALL, {**LITE, 'torch': '2.1.2'}, operators=False) is None


def test_an_old_mmcv_lite_is_replaced_by_a_newer(ask):
    message = ask(ALL, {**LITE, 'mmcv-lite': '2.0.0', 'torch': '2.1.2'}, operators=False)
    assert 'mmcv 2.0.0 is older than 2.1.0' in message and 'mmcv 2.0.0 without operators (mmcv-lite)' in message
    assert 'uninstall' not in message and 'mmcv-lite==2.1.0' in message


def test_mmcv_lite_is_of_the_original_family(ask):
    message = ask(['mmcv'], {**ONEDL, 'mmcv-lite': '2.1.0', 'torch': '2.11.0'}, operators=False)
    assert 'mmcv-lite and onedl-mmcv are both installed' in message and 'uninstall -y onedl-mmcv mmcv-lite' in message


def test_what_is_there_is_said_with_its_operators(ask):
    installed = {k: v for k, v in ONEDL.items() if k != 'onedl-mmdetection'}
    message = ask(['mmdet'], {**installed, 'torch': '2.11.0'}, operators=False)
    assert 'mmcv 2.3.6 without operators (onedl-mmcv)' in message
    assert message.endswith('install --no-build-isolation onedl-mmdetection==3.5.1')


def test_original_mmdet_with_too_new_mmcv_stays_in_its_family(ask):
    message = ask(['mmdet'], {**ORIGINALS, 'mmcv': '2.2.0', 'torch': '2.1.2'})
    assert 'mmdet 3.3.0 demands mmcv < 2.2 and mmcv is 2.2.0' in message
    command = message.split('Run:')[1]
    assert 'uninstall -y mmcv && ' in command and 'mmcv-lite==2.1.0' in command and 'onedl' not in command


def test_mmpretrain_takes_mmcv_2_2(ask):
    assert ask(['mmpretrain'], {**ORIGINALS, 'mmcv': '2.2.0', 'torch': '2.1.2'}) is None


def test_originals_on_new_torch_are_replaced_whole(ask):
    message = ask(['mmpretrain'], {**ORIGINALS, 'torch': '2.6.0'})
    assert 'mmengine 0.10.7 cannot load a checkpoint with torch 2.6.0' in message
    command = message.split('Run:')[1]
    before, after = command.split(' && ', 1)
    assert before.endswith('uninstall -y mmengine mmcv mmdet mmsegmentation mmpretrain')
    for name, version in ONEDL.items():
        assert f'{name}=={version}' in after


def test_both_families_are_named_and_both_removed(ask):
    message = ask(['mmengine'], {**ONEDL, 'mmengine': '0.10.7', 'torch': '2.11.0'})
    assert 'mmengine and onedl-mmengine are both installed and overwrite each other' in message
    assert 'uninstall -y onedl-mmengine mmengine && ' in message
    assert message.endswith('install --no-build-isolation onedl-mmengine==0.10.12')


def test_old_version_and_old_torch_get_the_originals(ask):
    message = ask(['mmseg'], {'mmengine': '0.7.0', 'torch': '2.1.2'})
    assert 'mmengine 0.7.0 is older than 0.10.7' in message
    command = message.split('Run:')[1]
    assert '"numpy<2"' in command and 'onedl' not in command
    # mmcv 2.1.0 cannot be built by the newest setuptools; mmcv-lite is the same without operators, as a wheel
    assert 'mmcv-lite==2.1.0' in command and 'mmsegmentation==1.2.2' in command


def test_torch_missing(ask):
    message = ask(['mmcv'], {})
    assert message.startswith('nfnet_mm needs mmcv here: torch is missing; ')
    assert 'install torch==2.11.0 torchvision==0.26.0 && ' in message


def test_unknown_name():
    from nfnet_mm.dependencies import require

    with pytest.raises(ValueError, match="unknown package 'mmdetection': expected one of mmengine, mmcv, mmdet, mmseg"):
        require('mmdetection')


def test_yapf_is_not_imported_while_another_process_writes_its_grammar(tmp_path):
    """As it is in the cache for a moment: under its name, and empty. A process that reads it then fails."""
    environment = {**os.environ, 'HOME': str(tmp_path), 'XDG_CACHE_HOME': str(tmp_path), 'TMPDIR': str(tmp_path)}
    command = [sys.executable, '-c', 'from nfnet_mm.dependencies import import_yapf; import_yapf(); print("imported")']

    def start():
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    assert start().communicate()[0] == 'imported\n'
    (grammar,) = tmp_path.rglob('PatternGrammar*.pickle')
    whole = grammar.read_bytes()
    grammar.write_bytes(b'')
    assert start().communicate()[1].endswith('EOFError: Ran out of input\n')
    (lock,) = tmp_path.glob('nfnet_mm_yapf_*.lock')
    with open(lock) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        waiting = start()
        with pytest.raises(subprocess.TimeoutExpired):
            waiting.wait(3)
        grammar.write_bytes(whole)
    assert waiting.communicate()[0] == 'imported\n'
