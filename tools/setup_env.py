#!/usr/bin/env python3
"""Make .venv from nothing: the pinned packages of requirements/ and mmcv's compiled operators.

Every step first looks at what is there, so a second call returns at once and a call after a kill goes on where the
killed one stopped. `.venv/ready.json` is written last: where it matches, all of it is there. The exit code is 0, 1
(something is missing: the last line says what to do) or 130 (interrupted). Needs nothing but a Python >= 3.8.
"""
import argparse
import glob
import hashlib
import json
import os
import platform
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import zipfile
from pathlib import Path

try:
    import fcntl
except ImportError:  # not a POSIX system: two set-ups at once are then not kept apart
    fcntl = None

PYTHONS = ('3.11', '3.12', '3.10')  # in order of preference
DISK_GB = 8.0  # .venv ends at 6.2 GB and peaks at 6.8 while pip unpacks torch and its CUDA libraries
DISK_GB_LATER = 1.5  # once torch is installed
CACHE_GB = 3.0  # what pip keeps of its downloads
BEAT = 5.0  # seconds: the longest silence
MMCV = 'onedl-mmcv'


class SetupError(Exception):
    """Something the set-up cannot mend itself; the message is one line that says what to do."""


class Places:
    """Where everything lies in one checkout."""

    def __init__(self, root):
        self.root = Path(root).resolve()
        self.venv = self.root / '.venv'
        self.python = self.venv / 'bin' / 'python'
        self.build = self.venv / 'build'  # outlives a broken venv, for it holds what the compiler has done so far
        self.stamp = self.venv / 'ready.json'
        self.base = self.root / 'requirements' / 'base.txt'
        self.pins = self.root / 'requirements' / 'known_good.txt'

    def site(self):
        return next(iter(self.venv.glob('lib/python3*/site-packages')), self.venv / 'none')

    def pin(self, name):
        """The version that the pins name for `name`, or None."""
        for file in (self.base, self.pins):
            found = re.search(rf'^{re.escape(name)}==([^\s;]+)', file.read_text(), re.M)
            if found:
                return found.group(1)
        return None


def say(text):
    print(text, flush=True)


def user_cache():
    return Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache')


def ask(python, code, timeout=120):
    """Run `code` with `python`; what it prints as JSON, or None if it does not run."""
    try:
        out = subprocess.run([str(python), '-c', code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                             timeout=timeout, cwd='/', check=True).stdout
        return json.loads(out.decode().strip().splitlines()[-1])
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return None


# ---- What the machine must have -------------------------------------------------------------------------------------

def how_to_install(apt, dnf):
    for tool, names in (('apt-get', apt), ('dnf', dnf)):
        if shutil.which(tool):
            return f'run `sudo {tool} install {names}`'
    return f'install it with the system\'s package manager (Debian, Ubuntu: {apt}; Fedora: {dnf})'


PROBE = '''
import importlib.util, json, os, sys, sysconfig
print(json.dumps(dict(version='%d.%d' % sys.version_info[:2], exe=sys.executable,
    headers=os.path.exists(os.path.join(sysconfig.get_paths()['include'], 'Python.h')),
    venv=all(importlib.util.find_spec(m) for m in ('venv', 'ensurepip')))))
'''


def find_python(explicit=None):
    """The probe of the best interpreter: 3.10-3.12, able to make a venv, with headers if any has them.

    Every candidate is run, for a name on PATH proves nothing (version managers leave names there that only print an
    error). Raises SetupError if none will do.
    """
    if explicit:
        info = ask(shutil.which(explicit) or explicit, PROBE)
        if not info or info['version'] not in PYTHONS:
            is_ = f'is Python {info["version"]}' if info else 'does not run'
            raise SetupError(f'PYTHON={explicit} {is_}, and Python 3.10, 3.11 or 3.12 is needed: name one, or leave '
                             'PYTHON away to have one looked for.')
        found = [info]
    else:
        folders = os.environ.get('PATH', '').split(os.pathsep)
        names = [f'python{v}' for v in PYTHONS] + ['python3', 'python']
        paths = [os.path.join(f, n) for n in names for f in folders] + [sys.executable]
        paths += [p for v in PYTHONS for p in sorted(glob.glob(os.path.expanduser(f'~/.pyenv/versions/{v}.*/bin/python')))]
        found, seen = [], set()
        for path in paths:
            if os.access(path, os.X_OK) and path not in seen:
                seen.add(path)
                info = ask(path, PROBE, timeout=20)
                if info:
                    found.append(info)
                    if info['version'] == PYTHONS[0] and info['venv'] and info['headers']:
                        break
        other = sorted({i['version'] for i in found})
        found = [i for i in found if i['version'] in PYTHONS]
        if not found:
            raise SetupError(f'Python 3.10, 3.11 or 3.12 is needed and only {", ".join(other) or "none"} was found: '
                             + how_to_install('python3.11 python3.11-venv python3.11-dev', 'python3.11 python3.11-devel')
                             + ', or name one: make PYTHON=/path/to/python3.11')
    best = min(found, key=lambda i: (not i['venv'], not i['headers'], PYTHONS.index(i['version'])))
    if not best['venv']:
        v = best['version']
        raise SetupError(f'{best["exe"]} cannot make virtual environments (its venv or ensurepip is missing): '
                         + how_to_install(f'python{v}-venv', f'python{v}') + '.')
    return best


def find_compiler():
    """The C++ compiler's command, after it has read a C++17 header. Raises SetupError."""
    given = os.environ.get('CXX')
    for cxx in [given] if given else ['g++', 'c++', 'clang++']:
        try:
            done = subprocess.run([*shlex.split(cxx), '-std=c++17', '-fsyntax-only', '-x', 'c++', '-'],
                                  input=b'#include <optional>\n', stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            if done.returncode == 0:
                return cxx
        except OSError:
            pass
    what = f'CXX={given} is no' if given else 'there is no'
    raise SetupError(f'mmcv\'s operators must be compiled and {what} working C++17 compiler: '
                     + how_to_install('g++', 'gcc-c++') + '.')


def check_disk(folder, need_gb):
    """Raise SetupError if the file system of `folder` has less than `need_gb` GB (1e9 bytes) free; return the free GB."""
    folder = Path(folder)
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free / 1e9
    if free < need_gb:
        raise SetupError(f'the disk of {folder} has {free:.1f} GB free and the set-up needs {need_gb:.1f} GB: free some '
                         'space, or make .venv a link to a folder on a larger disk.')
    return free


def preflight(at, python):
    """Raise SetupError for what the machine lacks, before anything is downloaded."""
    cached = wheel_folder(at, python['version'], '*')
    if not glob.glob(str(cached / '*.whl')) and not glob.glob(str(at.site() / 'mmcv' / '_ext*')):
        find_compiler()
        if not python['headers']:
            v = python['version']
            raise SetupError(f'mmcv\'s operators must be compiled and {python["exe"]} has no headers (Python.h): '
                             + how_to_install(f'python{v}-dev', f'python{v}-devel') + '.')
    need = DISK_GB_LATER if glob.glob(str(at.site() / 'torch-*.dist-info')) else DISK_GB
    if check_disk(at.venv, need) < need + CACHE_GB:
        os.environ['PIP_NO_CACHE_DIR'] = '1'  # the downloads fit once, not twice


# ---- Running the slow commands --------------------------------------------------------------------------------------

def run(cmd, log, what, news, lock=None, **kwargs):
    """Run `cmd` with its output in the file `log`; at least every BEAT seconds one line says how far it is.

    `news` turns a line of output into what the user should read, or None. The command writes to the file itself, so it
    lives on if this process is killed outright; it holds `lock` meanwhile. Raises SetupError when it fails.
    """
    start = shown = time.monotonic()
    latest, fresh, rest = what, True, b''
    with open(log, 'ab') as sink, open(log, 'rb') as source:
        source.seek(0, os.SEEK_END)
        begin = source.tell()
        proc = subprocess.Popen(cmd, stdout=sink, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                                start_new_session=True, pass_fds=[lock] if lock else [], **kwargs)
        try:
            while True:
                ended = proc.poll() is not None
                *lines, rest = (rest + source.read()).split(b'\n')
                for line in lines:
                    text = news(line.decode(errors='replace').strip())
                    latest, fresh = (text, True) if text else (latest, fresh)
                now = time.monotonic()
                if (fresh and now - shown >= 1) or now - shown >= BEAT:
                    say(f'  [{now - start:4.0f} s] {latest[:100]}')
                    shown, fresh = now, False
                if ended:
                    break
                time.sleep(0.2)
        except KeyboardInterrupt:
            for sig in (signal.SIGINT, signal.SIGKILL):  # all of its children too
                try:
                    os.killpg(proc.pid, sig)
                    proc.wait(10)
                except (ProcessLookupError, subprocess.TimeoutExpired):
                    pass
            raise
        source.seek(begin)
        output = source.read().decode(errors='replace')
    if proc.returncode:
        raise SetupError(explain(output, what, log))
    return output


def explain(output, what, log):
    """One line on why a command failed, from its output."""
    lines = [line.strip() for line in output.splitlines() if line.strip()] or ['(no output)']
    cause = next((line for line in reversed(lines) if re.search(r'\berror\b', line, re.I)), lines[-1])
    if re.search('No space left on device', output):
        advice = 'the disk is full: free some space and run make again'
    elif re.search(r'Killed signal|signal 9|out of memory|cannot allocate', output, re.I):
        advice = 'the machine ran out of memory: run make again with MAX_JOBS=1 in the environment'
    elif re.search(r'No matching distribution|Connection|resolution|Timeout|timed out|SSL|Proxy|HTTP error', output, re.I):
        advice = 'pip cannot reach its package index: mend the network (or its proxy settings) and run make again'
    else:
        advice = f'read {log}, mend the cause and run make again'
    return f'{what} failed ("{cause[:160]}"): {advice}; what is done is kept.'


def pip_news(line):
    if line.startswith('Installing collected packages:'):
        return f'installing {line.count(",") + 1} packages'
    return line if re.match(r'(Downloading|Building wheel|Preparing) ', line) else None


def pip(at, what, *args, lock=None):
    """Run pip in .venv, its output in .venv/build/pip.log."""
    say(f'- {what}')
    run([str(at.python), '-m', 'pip', *args, '--no-input', '--disable-pip-version-check'], at.build / 'pip.log', what,
        pip_news, lock, cwd=str(at.root))


# ---- The steps ------------------------------------------------------------------------------------------------------

def venv_problem(at, version=None):
    """Why .venv cannot be used as it is, or None. `version`: the Python version it must have, if not any good one."""
    if not at.venv.is_dir() or not any(p.name != 'build' for p in at.venv.iterdir()):
        return 'it does not exist'
    info = ask(at.python, PROBE)
    if not info:
        return 'its Python does not run'
    if info['version'] not in ([version] if version else PYTHONS):
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


def torch_facts(at):
    facts = ask(at.python, 'import json, torch; ok = torch.cuda.is_available(); print(json.dumps(dict('
                           'version=torch.__version__, cuda=torch.version.cuda, gpu=ok, arch=sorted({"sm%d%d" % '
                           'torch.cuda.get_device_capability(i) for i in range(torch.cuda.device_count())} if ok else []))))')
    if not facts:
        raise SetupError(f'torch is installed in {at.venv} but cannot be imported: delete .venv and run make again.')
    return facts


def find_nvcc():
    """The path of nvcc where torch looks for it, or None."""
    home = os.environ.get('CUDA_HOME') or os.environ.get('CUDA_PATH') or ''
    return shutil.which(os.path.join(home, 'bin', 'nvcc')) if home else \
        shutil.which('nvcc') or shutil.which('/usr/local/cuda/bin/nvcc')


def cuda_flavour(torch):
    """'cuda13.0-sm90' where the operators are to be built for the GPU, else 'cpu'."""
    if os.environ.get('MMCV_OPS') == 'cpu' or not (torch['gpu'] or os.environ.get('FORCE_CUDA') == '1'):
        return 'cpu'
    nvcc = find_nvcc()
    if not nvcc:
        say('  There is a GPU but no nvcc: the operators of mmcv are built for the CPU only.')
        return 'cpu'
    out = subprocess.run([nvcc, '--version'], stdout=subprocess.PIPE, stderr=subprocess.STDOUT).stdout.decode()
    have = (re.search(r'release (\d+\.\d+)', out) or ['', 'of unknown version'])[1]
    if have.split('.')[0] != str(torch['cuda']).split('.')[0]:  # torch refuses to compile with another major version
        say(f'  nvcc is CUDA {have} and torch needs {torch["cuda"]}: the operators of mmcv are built for the CPU only.')
        return 'cpu'
    arch = os.environ.get('TORCH_CUDA_ARCH_LIST', '').replace(' ', '_').replace(';', '_') or '_'.join(torch['arch'])
    return f'cuda{have}-{arch}'


def wheel_folder(at, version, flavour, torch=None):
    """The per-user folder of the compiled wheel: everything its machine code depends on is in the name."""
    libc = ''.join(platform.libc_ver())
    return user_cache() / 'nfnet_mm' / 'wheels' / (
        f'mmcv{at.pin(MMCV)}-py{version}-torch{torch or at.pin("torch") + "*"}-{flavour}-{platform.machine()}-{libc}')


def ops_problem(at, flavour):
    """Why the installed mmcv will not do, or None. Its operators must load, with CUDA if `flavour` says so."""
    cuda = ask(at.python, 'import json, mmcv._ext, mmcv.ops; print(json.dumps(mmcv.ops.get_compiling_cuda_version()))')
    if cuda is None:
        return 'mmcv._ext cannot be imported'
    return 'it was compiled without CUDA' if flavour != 'cpu' and cuda == 'not available' else None


def compile_news(before):
    """Ninja's '[12/78] c++ ...' as progress; `before` files were compiled by an earlier, interrupted run."""
    def news(line):
        step = re.match(r'\[(\d+)/(\d+)\]', line)
        if not step:
            return None
        done, of = int(step[1]) + before, int(step[2]) + before
        return f'compiling the operators of mmcv: {done} of {of} files ({100 * done // of}%)'
    return news


def build_wheel(at, flavour, lock=None):
    """Compile mmcv from its source package in .venv/build and return the wheel. Ninja goes on where it was stopped."""
    cxx, version = find_compiler(), at.pin(MMCV)
    stem = f'{MMCV.replace("-", "_")}-{version}'
    source = at.build / stem
    if not source.is_dir():
        pip(at, 'fetching the source of mmcv', 'download', '--no-deps', '--no-build-isolation', '--no-binary', ':all:',
            '-d', str(at.build), f'{MMCV}=={version}', lock=lock)
        unpacked = at.build / 'unpacked'
        shutil.rmtree(unpacked, ignore_errors=True)
        with tarfile.open(at.build / f'{stem}.tar.gz') as tar:
            tar.extractall(unpacked, **({'filter': 'data'} if hasattr(tarfile, 'data_filter') else {}))
        (unpacked / stem).rename(source)  # so that a half-unpacked tree never bears this name
    log, wheels = at.build / 'mmcv.log', at.build / 'wheels'
    shutil.rmtree(wheels, ignore_errors=True)
    before = sum(1 for _ in source.glob('build/**/*.o'))
    say(f'- compiling the operators of mmcv, once (minutes; {before} files are there; details in {log})')
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1
    memory = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2e9  # some files take 1 GB, with nvcc 2
    env = dict(os.environ, MMCV_WITH_OPS='1', CXX=cxx, MAX_JOBS=os.environ.get('MAX_JOBS', str(int(max(1, min(cpus, memory))))))
    # Debugging symbols are 95% of the wheel and half of the compiler's time. CPPFLAGS come after Python's own flags,
    # where CFLAGS would replace them, -O3 too.
    env['CPPFLAGS'] = (env.get('CPPFLAGS', '') + ' -g0').strip()
    if flavour == 'cpu':
        env.update(CUDA_VISIBLE_DEVICES='', FORCE_CUDA='0')  # a GPU without a usable nvcc must not be seen
    log.write_bytes(b'')
    try:
        run([str(at.python), '-m', 'pip', 'wheel', '-v', '.', '--no-deps', '--no-build-isolation', '-w', str(wheels)],
            log, 'compiling the operators of mmcv', compile_news(before), lock, cwd=str(source), env=env)
    except SetupError:
        say('\n'.join(line[:300] for line in log.read_text(errors='replace').splitlines()[-25:]))
        raise
    for wheel in wheels.glob('*.whl'):
        if any(name.startswith('mmcv/_ext') for name in zipfile.ZipFile(wheel).namelist()):
            return wheel
    raise SetupError(f'the wheel of mmcv was built without its operators: read {log}, mend the cause and run make again.')


def ensure_ops(at, flavour, version, torch, lock=None):
    """Install mmcv with working operators: from the user's cache of wheels if it is there, else compiled."""
    folder = wheel_folder(at, version, flavour, torch)
    problem = ops_problem(at, flavour)
    for cached in (True, False):
        if not problem:
            return
        wheel = next(iter(sorted(folder.glob('*.whl'))), None) if cached else build_wheel(at, flavour, lock)
        if not wheel:
            continue
        pip(at, f'installing mmcv ({wheel.name})', 'install', '--no-deps', '--force-reinstall', str(wheel), lock=lock)
        problem = ops_problem(at, flavour)
        if not cached and not problem:
            try:  # moved into place in one step: another checkout may be reading
                folder.mkdir(parents=True, exist_ok=True)
                part = folder / f'{os.getpid()}.part'
                shutil.copyfile(wheel, part)
                os.replace(part, folder / wheel.name)
            except OSError as error:
                say(f'  (the wheel could not be kept for other checkouts: {error})')
    if problem:
        raise SetupError(f'mmcv was compiled, yet {problem}: read {at.build / "mmcv.log"}, delete {at.build} and run make again.')


def wanted(at):
    """What the stamp must say for this checkout: pins, metadata, place, and whether there is a GPU to build for."""
    digest = hashlib.sha256()
    for path in [at.base, at.pins, at.root / 'setup.cfg', at.root / 'pyproject.toml']:
        digest.update(path.read_bytes() if path.exists() else b'-')
    gpu = os.path.exists('/proc/driver/nvidia/version') and os.environ.get('MMCV_OPS') != 'cpu' and find_nvcc()
    return dict(requirements=digest.hexdigest(), root=str(at.root), gpu=bool(gpu))


CHEAP = '''
import glob, importlib.metadata as m, json, sysconfig
print(json.dumps(['%d.%d.%d' % __import__('sys').version_info[:3], m.version('torch'),
                  len(glob.glob(sysconfig.get_paths()['platlib'] + '/mmcv/_ext*'))]))
'''


def is_ready(at, version=None):
    """Whether .venv is complete, in a tenth of a second. `version`: the Python version asked for, if any."""
    try:
        stamp = json.loads(at.stamp.read_text())
    except (OSError, ValueError):
        return False
    found = stamp.pop('found', None)
    return stamp == wanted(at) and found == ask(at.python, CHEAP) and (not version or found[0].startswith(version + '.'))


def take_lock(at):
    """Wait until no other set-up works in this .venv; return the lock's file descriptor (None where there are none)."""
    at.build.mkdir(parents=True, exist_ok=True)
    if not fcntl:
        return None
    lock = os.open(at.build / 'lock', os.O_RDWR | os.O_CREAT)
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            pid = os.pread(lock, 20, 0).decode() or '?'
            say(f'  another set-up is at work in {at.venv} (started by process {pid}): waiting for it')
            for _ in range(int(BEAT)):
                time.sleep(1)
    os.ftruncate(lock, 0)
    os.pwrite(lock, str(os.getpid()).encode(), 0)
    return lock


def set_up(at, explicit=None):
    """Bring .venv to the state that the pins describe. Raises SetupError, KeyboardInterrupt."""
    asked = find_python(explicit)['version'] if explicit else None
    if is_ready(at, asked):
        return
    lock = take_lock(at)
    if is_ready(at, asked):
        return
    start = time.monotonic()
    problem = venv_problem(at, asked)
    python = find_python(explicit) if problem else ask(at.python, PROBE)
    preflight(at, python)
    at.stamp.unlink() if at.stamp.exists() else None
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
        pip(at, 'installing torch and what mmcv is compiled with', 'install', '-r', str(at.base), lock=lock)
        rest = at.build / 'rest.txt'  # all but mmcv, which is compiled below, in sight of the user
        rest.write_text(''.join(line for line in at.pins.read_text().splitlines(True) if not line.startswith(('-r', MMCV + '=='))))
        pip(at, 'installing the other packages', 'install', '--no-build-isolation', '-r', str(at.base), '-r', str(rest), lock=lock)
        headless = at.pin('opencv-python-headless')
        if headless and not ask(at.python, 'import cv2; print(1)'):
            # Two of the packages bring OpenCV, and the one with windows does not load on a machine without libGL.
            pip(at, 'taking the OpenCV that needs no display', 'install', '--no-deps', '--force-reinstall',
                f'opencv-python-headless=={headless}', lock=lock)
        torch = torch_facts(at)
        ensure_ops(at, cuda_flavour(torch), python['version'], torch['version'], lock)
        pip(at, 'installing nfnet_mm itself, editable', 'install', '--no-build-isolation', '--no-deps', '-e', '.', lock=lock)
    finally:
        shutil.rmtree(temp, ignore_errors=True)
    part = at.stamp.with_suffix('.part')
    part.write_text(json.dumps(dict(wanted(at), found=ask(at.python, CHEAP))))
    os.replace(part, at.stamp)
    say(f'- {at.venv} is ready ({time.monotonic() - start:.0f} s)')


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--python', help='the interpreter to make .venv with (default: looked for)')
    parser.add_argument('--root', default=str(Path(__file__).resolve().parents[1]), help='the checkout (default: this one)')
    args = parser.parse_args(argv)

    def stop(*_):
        raise KeyboardInterrupt
    for sig in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(sig, stop)
    try:
        set_up(Places(args.root), args.python or None)
    except SetupError as error:
        print(f'set-up stopped: {error}', file=sys.stderr)
        return 1
    except OSError as error:
        print(f'set-up stopped: {error}: mend this and run make again; what is done is kept.', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print('set-up interrupted: run make again to go on from here.', file=sys.stderr)
        return 130
    return 0


if __name__ == '__main__':
    sys.exit(main())
