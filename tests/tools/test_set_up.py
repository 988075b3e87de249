"""The set-up, run as the user runs it, on a small stand-in for the real packages.

Only the packages are small: the script, pip, the virtual environment and the kills are real. The stand-in of mmcv has
operators if it is built where torch can be imported, as the real one; then it 'compiles' five object files, keeps those
an earlier run has made, as ninja does, and prints ninja's progress lines.
"""

import base64
import configparser
import hashlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import zipfile
from pathlib import Path

import psutil
import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / 'tools'))  # last: tools/ has files named as modules of the standard library

from set_up import environment, machine, process  # noqa: E402

PYTHON = os.path.realpath(sys._base_executable)
VERSION = f'{sys.version_info[0]}.{sys.version_info[1]}'

TORCH = """
__version__ = '2.11.0'
class version: cuda = None
class cuda: is_available = staticmethod(lambda: False)
"""
BACKEND = """
import base64, hashlib, os, pathlib, sys, time, zipfile
NAME, VERSION = {name!r}, '2.3.6'
INFO = NAME + '-' + VERSION + '.dist-info'
METADATA = 'Metadata-Version: 2.1\\nName: ' + NAME + '\\nVersion: ' + VERSION + '\\n'

def prepare_metadata_for_build_wheel(folder, settings=None):
    (pathlib.Path(folder) / INFO).mkdir()
    (pathlib.Path(folder) / INFO / 'METADATA').write_text(METADATA)
    return INFO
prepare_metadata_for_build_editable = prepare_metadata_for_build_wheel

def pack(folder, files):
    name = NAME + '-' + VERSION + '-py3-none-any.whl'
    files[INFO + '/METADATA'] = METADATA
    files[INFO + '/WHEEL'] = 'Wheel-Version: 1.0\\nGenerator: x\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n'
    files[INFO + '/RECORD'] = ''.join(f + ',,\\n' for f in files) + INFO + '/RECORD,,\\n'
    with zipfile.ZipFile(os.path.join(folder, name), 'w') as z:
        for file, text in files.items():
            z.writestr(file, text)
    return name

def build_editable(folder, settings=None, metadata=None):
    return pack(folder, {{NAME + '.pth': os.getcwd() + chr(10)}})

def build_wheel(folder, settings=None, metadata=None):
    cuda = 'get_compiling_cuda_version = lambda: "not available"'
    files = {{'mmcv/__init__.py': '', 'mmcv/ops.py': cuda}}
    try:
        import torch
    except ImportError:
        return pack(folder, files)
    if os.environ.get('FAIL'):
        sys.exit('nms.cpp:7: error: no such operator')
    build = pathlib.Path('build/temp')
    build.mkdir(parents=True, exist_ok=True)
    todo = [i for i in range(5) if not (build / (str(i) + '.o')).exists()]
    for done, i in enumerate(todo, 1):
        time.sleep(float(os.environ.get('SLOW', '0')))
        (build / (str(i) + '.o')).write_text('object')
        print('[%d/%d] c++ %d.cpp' % (done, len(todo), i), flush=True)
    return pack(folder, {{**files, 'mmcv/_ext.py': ''}})
"""
PYPROJECT = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'


def write_wheel(folder, name, version, files):
    info = f'{name}-{version}.dist-info'
    files = {
        **files,
        f'{info}/METADATA': f'Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n',
        f'{info}/WHEEL': 'Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n',
    }
    digest = {
        f: base64.urlsafe_b64encode(hashlib.sha256(t.encode()).digest()).rstrip(b'=').decode() for f, t in files.items()
    }
    rows = [f'{f},sha256={d},{len(files[f])}' for f, d in digest.items()]
    files[f'{info}/RECORD'] = '\n'.join([*rows, f'{info}/RECORD,,', ''])
    path = folder / f'{name}-{version}-py3-none-any.whl'
    with zipfile.ZipFile(path, 'w') as archive:
        for file, text in files.items():
            archive.writestr(file, text)
    return path


class Checkout:
    """A checkout of small packages, its own package index, and the environment that the set-up is run in."""

    def __init__(self, folder):
        self.root, self.links, self.cache = folder / 'checkout', folder / 'links', folder / 'cache'
        (self.root / 'requirements').mkdir(parents=True)
        self.links.mkdir()
        (self.root / 'requirements' / 'base.txt').write_text('torch==2.11.0\n')
        (self.root / 'requirements' / 'known_good.txt').write_text('-r base.txt\nonedl-mmcv==2.3.6\ntiny==1.0\n')
        (self.root / 'pyproject.toml').write_text(PYPROJECT)
        (self.root / 'backend.py').write_text(BACKEND.format(name='nfnet_mm'))
        write_wheel(self.links, 'torch', '2.11.0', {'torch.py': TORCH})
        write_wheel(self.links, 'tiny', '1.0', {'tiny.py': 'here = True'})
        with tarfile.open(self.links / 'onedl_mmcv-2.3.6.tar.gz', 'w:gz') as archive:
            for name, text in (
                ('pyproject.toml', PYPROJECT),
                ('backend.py', BACKEND.format(name='onedl_mmcv')),
                ('PKG-INFO', 'Metadata-Version: 2.1\nName: onedl-mmcv\nVersion: 2.3.6\n'),
            ):
                entry = tarfile.TarInfo(f'onedl_mmcv-2.3.6/{name}')
                entry.size = len(text)
                archive.addfile(entry, io.BytesIO(text.encode()))
        compiler = folder / 'compiler'
        compiler.write_text('#!/bin/sh\nexit 0\n')
        compiler.chmod(0o755)
        self.env = {k: v for k, v in os.environ.items() if not k.startswith('PIP_') and k != 'PYTHONPATH'}
        self.env.update(
            CXX=str(compiler),
            XDG_CACHE_HOME=str(self.cache),
            PIP_NO_INDEX='1',
            PIP_FIND_LINKS=str(self.links),
            PIP_CONFIG_FILE=os.devnull,
        )
        self.objects = self.root / '.venv/build/onedl_mmcv-2.3.6/build/temp'

    def start(self, *options, **env):
        command = [PYTHON, str(ROOT / 'tools/set_up'), '--root', str(self.root), '--python', PYTHON, *options]
        return subprocess.Popen(
            command, env={**self.env, **env}, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    def run(self, *options, **env):
        proc = self.start(*options, **env)
        out, err = proc.communicate(timeout=120)
        return proc.returncode, out, err

    def works(self, operators=True):
        code = 'import torch, tiny, mmcv, json; print(json.dumps(tiny.here))'
        if machine.ask(self.root / '.venv/bin/python', code) is not True:
            return False
        return machine.ask(self.root / '.venv/bin/python', 'import mmcv._ext; print(1)') == (1 if operators else None)

    def wait_for_objects(self, proc, count):
        until = time.monotonic() + 60
        while len(list(self.objects.glob('*.o'))) < count:
            assert proc.poll() is None, proc.communicate()
            assert time.monotonic() < until
            time.sleep(0.02)


def kill_tree(proc):
    for process_ in [*psutil.Process(proc.pid).children(recursive=True), psutil.Process(proc.pid)]:
        process_.kill()
    proc.communicate()


def last_line(err):
    assert 'Traceback' not in err
    return err.strip().splitlines()[-1]


@pytest.fixture(scope='module')
def empty_venv(tmp_path_factory):
    venv = tmp_path_factory.mktemp('empty') / 'venv'
    subprocess.run([PYTHON, '-m', 'venv', str(venv)], check=True)
    return venv


@pytest.fixture
def bare(tmp_path):
    """A checkout with nothing set up."""
    return Checkout(tmp_path)


@pytest.fixture
def checkout(bare, empty_venv):
    """A checkout whose .venv is there, but empty: it spares a test the seconds that making one takes."""
    shutil.copytree(empty_venv, bare.root / '.venv', symlinks=True)
    return bare


# ---- From nothing, again, and after damage --------------------------------------------------------------------------


def test_without_a_compiler_from_nothing_then_at_once_then_mended(bare):
    none = dict(CXX='/bin/false', FAIL='1')
    code, out, err = bare.run(**none)
    assert (code, err) == (0, '') and bare.works(operators=False)
    assert 'compiling' not in out and out.strip().splitlines()[-1].endswith('s)')

    start = time.monotonic()
    assert bare.run(**none) == (0, '', '')
    assert time.monotonic() - start < 10  # a tenth of a second where nothing else runs

    site = bare.root / f'.venv/lib/python{VERSION}/site-packages'
    (site / 'mmcv' / '__init__.py').unlink()
    shutil.rmtree(site / 'onedl_mmcv-2.3.6.dist-info')
    code, out, _ = bare.run(**none)
    assert code == 0 and bare.works(operators=False)


@pytest.mark.slow
def test_operators_are_compiled_kept_and_mended_from_the_cache(checkout):
    code, out, err = checkout.run('--ops', SLOW='0.3')
    assert (code, err) == (0, '') and checkout.works()
    assert 'of 5 files' in out
    assert checkout.run('--ops') == (0, '', '')
    assert checkout.run() == (0, '', '')  # an environment that has them needs nothing

    site = checkout.root / f'.venv/lib/python{VERSION}/site-packages'
    (site / 'tiny-1.0.dist-info' / 'INSTALLER').unlink()  # what pip leaves when it is killed as it installs tiny
    (site / 'tiny.py').unlink()
    (checkout.root / '.venv/ready.json').unlink()
    code, out, err = checkout.run(CXX='/bin/false', FAIL='1')
    assert code == 0 and checkout.works(), (out, err)  # mended, with the operators it had
    assert 'removed tiny-1.0.dist-info' in out and 'installing mmcv' not in out
    code, out, _ = checkout.run('--ops', FAIL='1')
    assert code == 0 and 'compiling' not in out and 'installing mmcv' not in out

    (site / 'mmcv' / '_ext.py').unlink()  # the operators are gone
    code, out, _ = checkout.run('--ops', FAIL='1')  # compiling would fail: it is not needed
    assert code == 0 and checkout.works()


@pytest.mark.slow
def test_operators_of_another_torch_are_taken_away(checkout):
    assert checkout.run('--ops')[0] == 0
    key = checkout.root / '.venv/mmcv_built_for.txt'
    key.write_text(key.read_text().replace('torch2.11.0', 'torch2.10.0'))
    (checkout.root / 'requirements' / 'base.txt').write_text('torch==2.11.0  # another file\n')
    code, out, err = checkout.run(FAIL='1')
    assert code == 0 and checkout.works(operators=False), err
    assert 'without its compiled operators (it was not built for this version of torch): `make ops` compiles' in out
    code, out, err = checkout.run('--ops', FAIL='1')  # the cache has those of this torch
    assert code == 0 and checkout.works(), err


def test_cached_wheel_that_does_not_load_is_built_again(checkout):
    folder = environment.wheel_folder(environment.Places(checkout.root), VERSION, 'cpu', '2.11.0')
    folder = checkout.cache / folder.relative_to(folder.parents[2])
    folder.mkdir(parents=True)
    bad = write_wheel(folder, 'onedl_mmcv', '2.3.6', {'mmcv/__init__.py': ''})  # as a build without operators
    code, out, err = checkout.run('--ops')
    assert code == 0 and checkout.works(), err
    assert str(bad) in out and 'compiling' in out
    assert 'mmcv/_ext.py' in zipfile.ZipFile(bad).namelist()  # and the bad one is replaced


# ---- Interrupted ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_killed_compile_goes_on_where_it_stopped(checkout):
    proc = checkout.start('--ops', SLOW='0.5')
    checkout.wait_for_objects(proc, 2)
    kill_tree(proc)
    kept = {p.name: p.stat().st_mtime_ns for p in checkout.objects.glob('*.o')}
    assert 2 <= len(kept) < 5 and not (checkout.root / '.venv/ready.json').exists()

    code, out, err = checkout.run('--ops')
    assert code == 0 and checkout.works(), err
    assert f'{len(kept)} files of an interrupted run are kept' in out
    assert {name: (checkout.objects / name).stat().st_mtime_ns for name in kept} == kept


@pytest.mark.parametrize('sig', [signal.SIGINT, signal.SIGTERM])
def test_interrupt_ends_in_one_line_and_leaves_no_process(checkout, sig):
    proc = checkout.start('--ops', SLOW='1')
    checkout.wait_for_objects(proc, 1)
    children = psutil.Process(proc.pid).children(recursive=True)
    assert children
    proc.send_signal(sig)
    _, err = proc.communicate(timeout=20)
    assert proc.returncode == 130
    assert err == 'set-up interrupted: run make again to go on from here.\n'
    assert not psutil.wait_procs(children, timeout=5)[1]


def test_two_at_once_do_the_work_once(checkout):
    first = checkout.start('--ops', SLOW='0.5')
    checkout.wait_for_objects(first, 1)
    code, out, err = checkout.run('--ops')
    assert code == 0, err
    assert f'started by process {first.pid}' in out and 'compiling' not in out
    assert first.communicate()[1] == '' and first.returncode == 0 and checkout.works()


@pytest.mark.parametrize(
    'broken, problem', [('dangling python', 'its Python does not run'), ('no pip', 'its pip does not run')]
)
def test_broken_venv_is_made_again_and_the_compiled_files_stay(tmp_path, broken, problem):
    at = environment.Places(tmp_path)
    assert environment.venv_problem(at) == 'it does not exist'
    subprocess.run([PYTHON, '-m', 'venv', '--without-pip', str(at.venv)], check=True)
    (at.build / 'mmcv').mkdir(parents=True)
    (at.build / 'mmcv' / 'nms.o').write_text('object')
    if broken == 'dangling python':
        for path in (at.venv / 'bin').glob('python*'):
            path.unlink()
            path.symlink_to(tmp_path / 'gone')
    assert environment.venv_problem(at) == problem
    environment.make_venv(at, machine.find_python(PYTHON))
    assert environment.venv_problem(at) is None
    assert (at.build / 'mmcv' / 'nms.o').read_text() == 'object'
    other = next(v for v in machine.PYTHONS if v != VERSION)
    assert environment.venv_problem(at, other) == f'it has Python {VERSION}'


# ---- What is missing is said in the last line -----------------------------------------------------------------------


def test_compiler_error_shows_the_log_and_ends_in_one_line(checkout):
    code, out, err = checkout.run('--ops', FAIL='1')
    assert code == 1 and 'no such operator' in out
    assert re.fullmatch(
        r'set-up stopped: compiling .* failed \(.*\): read \S+mmcv.log, mend the cause and run make '
        r'again; what is done is kept\.',
        last_line(err),
    )


def test_package_that_cannot_be_had(checkout):
    next(checkout.links.glob('tiny*')).unlink()
    code, _, err = checkout.run()
    assert code == 1
    assert re.search(r'tiny==1\.0.*check the network.*run make again', last_line(err))


def test_no_compiler_stops_before_anything_is_made(bare, tmp_path):
    tools = tmp_path / 'bin'
    tools.mkdir()
    (tools / 'apt-get').write_text('#!/bin/sh\n')
    (tools / 'apt-get').chmod(0o755)
    del bare.env['CXX']
    code, out, err = bare.run('--ops', PATH=str(tools))
    assert (code, out) == (1, '')
    assert err == (
        "set-up stopped: mmcv's operators must be compiled and there is no working C++17 compiler: "
        'run `sudo apt-get install g++`.\n'
    )
    assert sorted(p.name for p in (bare.root / '.venv').rglob('*')) == ['build', 'lock']
    code, _, err = bare.run('--ops', PATH=str(tools), CXX='no-such-compiler')
    assert code == 1 and 'CXX=no-such-compiler is no working C++17 compiler' in last_line(err)


def fake_python(folder, name, **facts):
    """An interpreter that says these things about itself; without any, one that does not run."""
    path = folder / name
    facts = dict(dict(exe=str(path), headers=True, venv=True), **facts) if facts else None
    path.write_text(f"#!/bin/sh\necho '{json.dumps(facts)}'\n" if facts else '#!/bin/sh\nexit 127\n')
    path.chmod(0o755)
    return path


def test_a_toolkit_behind_a_script_and_without_all_headers(tmp_path, monkeypatch):
    """An nvcc on the path that calls the real one elsewhere, and headers that only came with torch."""
    for name in ('CUDA_HOME', 'CUDA_PATH', 'CPATH'):
        monkeypatch.delenv(name, raising=False)
    home, folder, site = tmp_path / 'cuda-13.0', tmp_path / 'path', tmp_path / 'site'
    for made in (home / 'bin', home / 'include', folder, site / 'nvidia/cu13/include'):
        made.mkdir(parents=True)
    (site / 'nvidia/cu13/include/cusparse.h').touch()
    write_program(home / 'bin/nvcc', f"echo '#$ _HERE_={home}/bin' >&2; echo '#$ TOP={home}/bin/..' >&2")
    write_program(folder / 'nvcc', f'exec {home}/bin/nvcc "$@"')
    monkeypatch.setenv('PATH', f'{folder}{os.pathsep}{os.environ["PATH"]}')
    nvcc, own = machine.find_nvcc(), str(site / 'nvidia/cu13/include')
    assert nvcc == str(folder / 'nvcc')
    assert machine.cuda_places(nvcc, site) == dict(CUDA_HOME=str(home), CPATH=own)
    monkeypatch.setenv('CPATH', '/mine')
    monkeypatch.setenv('CUDA_HOME', str(home))
    assert machine.cuda_places(str(home / 'bin/nvcc'), site) == dict(CPATH=f'/mine{os.pathsep}{own}')
    (home / 'include/cusparse.h').touch()
    assert machine.cuda_places(str(home / 'bin/nvcc'), site) == {}
    monkeypatch.delenv('CUDA_HOME')
    write_program(home / 'bin/nvcc', 'exit 1')  # one that does not tell
    assert machine.cuda_places(str(home / 'bin/nvcc'), site) == dict(CUDA_HOME=str(home))


def write_program(path, code):
    path.write_text(f'#!/bin/sh\n{code}\n')
    path.chmod(0o755)


def test_the_best_python_that_runs_is_taken(tmp_path, monkeypatch):
    monkeypatch.setenv('PATH', str(tmp_path))
    monkeypatch.setenv('HOME', str(tmp_path))
    old = fake_python(tmp_path, 'python3', version='3.9')
    monkeypatch.setattr(sys, 'executable', str(old))
    with pytest.raises(machine.SetupError, match=r'3\.10, 3\.11 or 3\.12 is needed and only 3\.9 was found: .*PYTHON='):
        machine.find_python()
    with pytest.raises(machine.SetupError, match=r'PYTHON=python3 is Python 3\.9'):
        machine.find_python('python3')
    with pytest.raises(machine.SetupError, match=r'PYTHON=/no/python does not run'):
        machine.find_python('/no/python')
    fake_python(tmp_path, 'python3.11')  # does not run, as a version manager's name for what is not chosen
    ten = fake_python(tmp_path, 'python3.10', version='3.10')
    assert machine.find_python()['exe'] == str(ten)
    fake_python(tmp_path, 'python3.12', version='3.12', headers=False)
    assert machine.find_python()['exe'] == str(ten)  # 3.12 would be preferred, but nothing can be compiled for it
    fake_python(tmp_path, 'python3.10', version='3.10', venv=False)
    assert machine.find_python()['version'] == '3.12'
    with pytest.raises(machine.SetupError, match=r'python3\.10 cannot make virtual environments .*python3\.10-venv'):
        machine.find_python(str(tmp_path / 'python3.10'))


def test_python_may_be_named_by_a_relative_path(tmp_path, monkeypatch):
    (tmp_path / 'bin').mkdir()
    (tmp_path / 'bin/python').symlink_to(sys.executable)
    (tmp_path / 'checkout').mkdir()
    monkeypatch.chdir(tmp_path / 'checkout')
    assert machine.find_python('../bin/python')['version'] == f'{sys.version_info[0]}.{sys.version_info[1]}'


def test_missing_headers_and_disk(bare, monkeypatch):
    at = environment.Places(bare.root)
    monkeypatch.setenv('XDG_CACHE_HOME', str(bare.cache))
    monkeypatch.setenv('CXX', bare.env['CXX'])
    python = dict(version='3.11', exe='/usr/bin/python3.11', headers=False, venv=True)
    with pytest.raises(machine.SetupError, match=r'python3\.11 has no headers \(Python\.h\): .*python3\.11-dev'):
        environment.preflight(at, python, fresh=True, ops=True)
    monkeypatch.setattr(environment, 'DISK_GB', 1e6)
    with pytest.raises(machine.SetupError, match=r'has [0-9.]+ GB free and the set-up needs 1000000\.0 GB: free'):
        environment.preflight(at, python, fresh=True, ops=False)
    assert machine.check_disk(bare.root / 'not' / 'there', 0) > 0


@pytest.mark.parametrize(
    'output, advice',
    [
        ('error: could not write: [Errno 28] No space left on device', 'the disk is full'),
        ('c++: fatal error: Killed signal terminated program cc1plus', 'MAX_JOBS=1'),
        (
            'WARNING: Retrying: NewConnectionError: Temporary failure in name resolution\nERROR: nothing found',
            'network',
        ),
        ('a.cpp:3: error: expected resolution of Connection', 'mend the cause'),
        ('', 'mend the cause'),
    ],
)
def test_cause_of_a_failed_command(output, advice):
    message = process.explain(output, 'this step', 'the.log')
    assert advice in message and '\n' not in message and message.startswith('this step failed')


# ---- The pins and the metadata --------------------------------------------------------------------------------------


@pytest.mark.parametrize('version', machine.PYTHONS)
def test_pins_are_exact_and_name_each_package_once(version):
    lines = [
        line.split('#')[0].strip()
        for name in ('base', 'known_good')
        for line in (ROOT / f'requirements/{name}.txt').read_text().splitlines()
    ]
    pins = [Requirement(line) for line in lines if line and not line.startswith('-r')]
    pins = [p for p in pins if not p.marker or p.marker.evaluate({'python_version': version})]
    names = [re.sub('[-_.]+', '-', p.name.lower()) for p in pins]
    assert len(names) == len(set(names)) > 80
    assert all(re.fullmatch(r'==[\w.]+', str(p.specifier)) for p in pins)
    assert not {'mmcv', 'mmengine', 'mmdet', 'mmsegmentation', 'mmpretrain'} & set(names)  # of the other family


def test_the_original_stack_takes_the_place_of_the_other_family():
    at = environment.Places(ROOT, 'openmmlab')
    base, names = [re.split('==', line)[0] for line in at.base], [re.match(r'[\w.-]+', x)[0] for x in at.rest]
    assert {'torch', 'torchvision', 'numpy', 'setuptools'} < set(base) and len(base) == len(set(base))
    assert {'mmengine', 'mmcv-lite', 'mmdet', 'mmsegmentation', 'mmpretrain', 'pytest', 'timm'} < set(names)
    assert not any(name.startswith('onedl') for name in names) and not set(base) & set(names)
    pins = [at.pin(name) for name in ('torch', 'numpy', 'mmengine', 'mmcv-lite', 'opencv-python')]
    assert pins == ['2.1.2', '1.26.4', '0.10.7', '2.1.0', '4.10.0.84']
    assert (at.venv.name, at.mmcv, at.pythons) == ('.venv-openmmlab', 'mmcv-lite', ('3.11', '3.10'))


def test_the_newest_stack_pins_all_but_torch():
    newest, usual = environment.Places(ROOT, 'newest'), environment.Places(ROOT)
    assert sorted(newest.base) == sorted(['torch', 'torchvision', *(x for x in usual.base if 'torch' not in x)])
    assert newest.rest == usual.rest and newest.mmcv == usual.mmcv == 'onedl-mmcv'


def test_another_stack_beside_the_usual_one(bare):
    (bare.root / 'requirements' / 'newest.txt').write_text('# the newest\ntorch\n')
    write_wheel(bare.links, 'torch', '2.12.0', {'torch.py': TORCH.replace('2.11', '2.12')})
    code, _, err = bare.run('--stack', 'newest', CXX='/bin/false', FAIL='1')
    assert (code, err) == (0, '')
    assert machine.ask(bare.root / '.venv-newest/bin/python', 'import torch; print(torch.__version__[:4])') == 2.12
    assert bare.run('--stack', 'newest') == (0, '', '') and not (bare.root / '.venv').exists()
    code, _, err = bare.run('--stack', 'newest', '--ops')
    assert code == 2 and '--ops compiles for .venv alone' in err


def test_openmmlab_is_never_a_hard_requirement():
    config = configparser.ConfigParser()
    config.read(ROOT / 'setup.cfg')
    assert config['options']['install_requires'].split() == ['torch>=2.0', 'torchvision', 'numpy']
    extras = {name: config['options.extras_require'][name].split() for name in ('openmmlab', 'onedl')}
    assert all(line.startswith('onedl-mm') for line in extras['onedl']) and len(extras['onedl']) == 5
    assert all(line.startswith('mm') for line in extras['openmmlab']) and len(extras['openmmlab']) == 5
