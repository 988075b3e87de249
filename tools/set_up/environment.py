"""Make .venv from nothing: the pinned packages of requirements/; with --ops, mmcv with its compiled operators.

Without, mmcv is installed as it is without a compiler, and the package's own operators stand in for those; a .venv that
has compiled ones keeps them. With --stack, .venv-openmmlab or .venv-newest is made instead, with other versions.

Every step first looks at what is there, so a second call returns at once and a call after a kill goes on where the
killed one stopped. `.venv/ready.json` is written last: where it matches, all of it is there. The exit code is 0, 1
(something is missing: the last line says what to do) or 130 (interrupted). Needs nothing but a Python >= 3.8.
"""

import argparse
import glob
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from set_up.machine import PROBE, SetupError, ask, check_disk, find_compiler, find_nvcc, find_python, lacking
from set_up.mmcv_ops import ensure_mmcv, ensure_ops, has_ops, wheel_folder
from set_up.places import STACKS, Places, name_of
from set_up.process import BEAT, explain, pip, say

try:
    import fcntl
except ImportError:  # not a POSIX system: two set-ups at once are then not kept apart
    fcntl = None

DISK_GB = 8.0  # .venv ends at 6.2 GB and peaks at 6.8 while pip unpacks torch and its CUDA libraries
DISK_GB_LATER = 1.5  # once torch is installed
CACHE_GB = 3.0  # what pip keeps of its downloads


def preflight(at, python, fresh, ops):
    """Raise SetupError for what the machine lacks, before anything is downloaded. `fresh`: .venv is made anew."""
    if (
        ops
        and (fresh or not at.built_for.exists())
        and not glob.glob(str(wheel_folder(at, python['version'], '*') / '*.whl'))
    ):
        find_compiler()
        if not python['headers']:
            v = python['version']
            what = f"mmcv's operators must be compiled and {python['exe']} has no headers (Python.h)"
            raise lacking(what, f'python{v}-dev', f'python{v}-devel')
    need = DISK_GB if fresh or not glob.glob(str(at.site() / 'torch-*.dist-info')) else DISK_GB_LATER
    if check_disk(at.venv, need) < need + CACHE_GB:
        os.environ['PIP_NO_CACHE_DIR'] = '1'  # the downloads fit once, not twice


def venv_problem(at, version=None):
    """Why .venv cannot be used as it is, or None. `version`: the Python version it must have, if not any good one."""
    if not at.venv.is_dir() or not any(p.name != 'build' for p in at.venv.iterdir()):
        return 'it does not exist'
    info = ask(at.python, PROBE)
    if not info:
        return 'its Python does not run'
    if info['version'] not in ([version] if version else at.pythons):
        return f'it has Python {info["version"]}'
    if not ask(at.python, 'import pip._internal.cli.main, sys; print(int(sys.prefix != sys.base_prefix))'):
        return 'its pip does not run'
    return None


def make_venv(at, python):
    """Create .venv, over a broken one too; .venv/build is kept."""
    for path in at.venv.iterdir():
        if path != at.build:
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    done = subprocess.run([python['exe'], '-m', 'venv', str(at.venv)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode or venv_problem(at):
        raise SetupError(explain(done.stdout.decode(errors='replace'), f'{python["exe"]} -m venv', at.venv))


def drop_half_installed(site):
    """Remove what a killed pip left in `site`, which pip itself would take for installed; return the names.

    pip writes a package's INSTALLER and RECORD last, and renames what it replaces to a name that begins with '~'.
    """
    dropped = [p for p in site.glob('*.dist-info') if not ((p / 'INSTALLER').exists() and (p / 'RECORD').exists())]
    dropped += site.glob('~*')
    for path in dropped:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return [p.name for p in dropped]


def wanted(at):
    """What the stamp must say for this checkout: pins, metadata, place."""
    digest = hashlib.sha256()
    for path in [*at.files, at.root / 'setup.cfg', at.root / 'pyproject.toml']:
        digest.update(path.read_bytes() if path.exists() else b'-')
    return dict(requirements=digest.hexdigest(), root=str(at.root))


def gpu_to_build_for():
    return bool(os.path.exists('/proc/driver/nvidia/version') and os.environ.get('MMCV_OPS') != 'cpu' and find_nvcc())


def contents(at):
    """What .venv holds, in a tenth of a second: its Python, every installed package's version, mmcv's operators."""
    names = [p.name for pattern in ('*.dist-info', 'mmcv/_ext*') for p in at.site().glob(pattern)]
    return [ask(at.python, 'import json, sys; print(json.dumps(sys.version.split()[0]))'), *sorted(names)]


def read_stamp(at):
    try:
        stamp = json.loads(at.stamp.read_text())
    except (OSError, ValueError):
        return {}
    return stamp if isinstance(stamp, dict) else {}


def is_ready(at, version=None, ops=False):
    """Whether .venv is what the stamp says. `version`: the Python version asked for, if any; `ops`: with operators."""
    stamp = read_stamp(at)
    # 'gpu' is whether the operators were built where there was a GPU to build for, None if there are none
    found, gpu = stamp.pop('contents', None), stamp.pop('gpu', None)
    if stamp != wanted(at) or found != contents(at) or (version and not found[0].startswith(version + '.')):
        return False
    return not ops or gpu == gpu_to_build_for()


def take_lock(at):
    """Wait until no other set-up works in this .venv, where there are locks."""
    at.build.mkdir(parents=True, exist_ok=True)
    if not fcntl:
        return
    lock = os.open(at.build / 'lock', os.O_RDWR | os.O_CREAT)
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            pid = os.pread(lock, 20, 0).decode() or '?'
            say(f'  another set-up is at work in {at.venv} (started by process {pid}): waiting for it')
            time.sleep(BEAT)
    os.ftruncate(lock, 0)
    os.pwrite(lock, str(os.getpid()).encode(), 0)
    at.lock = lock


def set_up(at, explicit=None, ops=False):
    """Bring .venv to the state that the pins describe. Raises SetupError, KeyboardInterrupt."""
    asked = find_python(explicit, at.pythons)['version'] if explicit else None
    if is_ready(at, asked, ops):
        return
    take_lock(at)
    if is_ready(at, asked, ops):
        return
    start = time.monotonic()
    problem = venv_problem(at, asked)
    python = find_python(explicit, at.pythons) if problem else ask(at.python, PROBE)
    preflight(at, python, bool(problem), ops)
    built_with_gpu = read_stamp(at).get('gpu')
    if at.stamp.exists():
        at.stamp.unlink()
    (at.build / 'pip.log').write_bytes(b'')
    temp = at.build / 'tmp'  # pip unpacks gigabytes, more than many a /tmp has
    shutil.rmtree(temp, ignore_errors=True)
    temp.mkdir()
    os.environ['TMPDIR'] = str(temp)
    try:
        if problem:
            say(f'- making {at.venv} with {python["exe"]} ({problem})')
            make_venv(at, python)
        for name in drop_half_installed(at.site()):
            say(f'  removed {name}, left half-installed by an interrupted run')
        base, rest = at.build / 'base.txt', at.build / 'rest.txt'
        base.write_text('\n'.join(at.base))
        rest.write_text('\n'.join(line for line in at.rest if name_of(line) != at.mmcv))  # which is installed below
        install = ['install', '--no-build-isolation']  # with the build tools that the pins name
        pip(at, 'installing torch', 'install', '-r', base, '-c', rest)
        pip(at, 'installing the other packages', *install, '-r', base, '-r', rest)
        headless = at.pin('opencv-python-headless')
        if headless and not ask(at.python, 'import cv2; print(1)'):
            # Two of the packages bring OpenCV, and the one with windows does not load on a machine without libGL.
            again = ['install', '--no-deps', '--force-reinstall', f'opencv-python-headless=={headless}']
            pip(at, 'taking the OpenCV that needs no display', *again)
        (ensure_ops if ops else ensure_mmcv)(at, python['version'])
        pip(at, 'installing nfnet_mm itself, editable', *install, '--no-deps', '-e', '.')
    finally:
        shutil.rmtree(temp, ignore_errors=True)
    part = at.stamp.with_suffix('.part')
    gpu = gpu_to_build_for() if ops else built_with_gpu if has_ops(at) else None
    part.write_text(json.dumps(dict(wanted(at), contents=contents(at), gpu=gpu)))
    os.replace(part, at.stamp)
    say(f'- {at.venv} is ready ({time.monotonic() - start:.0f} s)')


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--python', help='the interpreter to make .venv with (default: looked for)')
    parser.add_argument('--ops', action='store_true', help="compile mmcv's operators")
    parser.add_argument('--stack', choices=STACKS, help='make .venv-STACK, with the versions of requirements/STACK.txt')
    parser.add_argument('--root', default=Path(__file__).resolve().parents[2], help='the checkout (default: this one)')
    args = parser.parse_args(argv)
    if args.ops and args.stack:
        parser.error('--ops compiles for .venv alone: the other stacks are there to be tested without operators')

    def stop(*_):
        raise KeyboardInterrupt

    for sig in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(sig, stop)
    try:
        set_up(Places(args.root, args.stack), args.python or None, args.ops)
    except (SetupError, OSError) as error:
        advice = ': mend this and run make again; what is done is kept.' if isinstance(error, OSError) else ''
        print(f'set-up stopped: {error}{advice}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print('set-up interrupted: run make again to go on from here.', file=sys.stderr)
        return 130
    return 0
