"""What the machine must have: an interpreter, a C++ compiler, disk. Each lack is one line that says what to do."""

import glob
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

PYTHONS = ('3.11', '3.12', '3.10')  # in order of preference


class SetupError(Exception):
    """Something the set-up cannot mend itself; the message is one line that says what to do."""


def ask(python, code, timeout=120):
    """Run `code` with `python`; what it prints as JSON, or None if it does not run."""
    try:
        done = subprocess.run([str(python), '-c', code], capture_output=True, timeout=timeout, cwd='/', check=True)
        return json.loads(done.stdout.decode().strip().splitlines()[-1])
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return None


def lacking(what, apt, dnf, end='.'):
    """The SetupError that says what is missing and which packages of the system have it."""
    how = f"install it with the system's package manager (Debian, Ubuntu: {apt}; Fedora: {dnf})"
    for tool, names in (('dnf', dnf), ('apt-get', apt)):
        if shutil.which(tool):
            how = f'run `sudo {tool} install {names}`'
    return SetupError(f'{what}: {how}{end}')


PROBE = """
import importlib.util, json, os, sys, sysconfig
print(json.dumps(dict(version='%d.%d' % sys.version_info[:2], exe=sys.executable,
    headers=os.path.exists(os.path.join(sysconfig.get_paths()['include'], 'Python.h')),
    venv=all(importlib.util.find_spec(m) for m in ('venv', 'ensurepip')))))
"""


def find_python(explicit=None, pythons=PYTHONS):
    """The probe of the best interpreter: one of `pythons`, able to make a venv, with headers if any has them.

    Every candidate is run, for a name on PATH proves nothing (version managers leave names there that only print an
    error). Raises SetupError if none will do.
    """
    *first, last = sorted(pythons)
    wanted = f'{", ".join(first)} or {last}'
    if explicit:
        found = shutil.which(explicit)
        info = ask(os.path.abspath(found) if found else explicit, PROBE)  # `ask` runs it in another folder
        if not info or info['version'] not in pythons:
            is_ = f'is Python {info["version"]}' if info else 'does not run'
            raise SetupError(
                f'PYTHON={explicit} {is_}, and Python {wanted} is needed: name one, or leave '
                'PYTHON away to have one looked for.'
            )
        found = [info]
    else:
        folders = os.environ.get('PATH', '').split(os.pathsep)
        names = [f'python{v}' for v in pythons] + ['python3', 'python']
        paths = [os.path.join(f, n) for n in names for f in folders] + [sys.executable]
        for v in pythons:
            paths += sorted(glob.glob(os.path.expanduser(f'~/.pyenv/versions/{v}.*/bin/python')))
        found = []
        for path in dict.fromkeys(paths):
            if os.access(path, os.X_OK):
                info = ask(path, PROBE, timeout=20)
                if info:
                    found.append(info)
                    if info['version'] == pythons[0] and info['venv'] and info['headers']:
                        break
        other = sorted({i['version'] for i in found})
        found = [i for i in found if i['version'] in pythons]
        if not found:
            raise lacking(
                f'Python {wanted} is needed and only {", ".join(other) or "none"} was found',
                'python3.11 python3.11-venv python3.11-dev',
                'python3.11 python3.11-devel',
                ', or name one: make PYTHON=/path/to/python3.11',
            )
    best = min(found, key=lambda i: (not i['venv'], not i['headers'], pythons.index(i['version'])))
    if not best['venv']:
        what = f'{best["exe"]} cannot make virtual environments (its venv or ensurepip is missing)'
        raise lacking(what, f'python{best["version"]}-venv', f'python{best["version"]}')
    return best


def find_compiler():
    """The C++ compiler's command, after it has read a C++17 header. Raises SetupError."""
    given = os.environ.get('CXX')
    for cxx in [given] if given else ['g++', 'c++', 'clang++']:
        try:
            command = [*shlex.split(cxx), '-std=c++17', '-fsyntax-only', '-x', 'c++', '-']
            if subprocess.run(command, input=b'#include <optional>\n', capture_output=True).returncode == 0:
                return cxx
        except OSError:
            pass
    what = f'CXX={given} is no' if given else 'there is no'
    raise lacking(f"mmcv's operators must be compiled and {what} working C++17 compiler", 'g++', 'gcc-c++')


def check_disk(folder, need_gb):
    """The GB (1e9 bytes) free where `folder` lies; raises SetupError if they are fewer than `need_gb`."""
    folder = Path(folder)
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free / 1e9
    if free < need_gb:
        raise SetupError(
            f'the disk of {folder} has {free:.1f} GB free and the set-up needs {need_gb:.1f} GB: free '
            'some space, or make .venv a link to a folder on a larger disk.'
        )
    return free


def find_nvcc():
    """The path of nvcc where torch looks for it, or None."""
    home = os.environ.get('CUDA_HOME') or os.environ.get('CUDA_PATH')
    places = [os.path.join(home, 'bin', 'nvcc')] if home else ['nvcc', '/usr/local/cuda/bin/nvcc']
    return next(filter(None, map(shutil.which, places)), None)


def cuda_places(nvcc, site):
    """What to set in the environment for torch to compile with a toolkit, beyond what is set.

    `nvcc` may be a script that calls another one, beside which torch would look for the toolkit; and the toolkit may
    lack headers (cuSPARSE's, cuBLAS'), which are in `site`, among the packages that came with torch.
    """
    done = subprocess.run([nvcc, '--dryrun', '-x', 'cu', os.devnull], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    top = re.search(r'^#\$ TOP=(.+)$', done.stdout.decode(errors='replace'), re.MULTILINE)
    home = os.path.realpath(top[1]) if top else os.path.dirname(os.path.dirname(os.path.realpath(nvcc)))
    found = {} if os.environ.get('CUDA_HOME') or os.environ.get('CUDA_PATH') else {'CUDA_HOME': home}
    headers = sorted(Path(site).glob('nvidia/cu[0-9]*/include/cusparse.h'))
    if headers and not os.path.exists(os.path.join(home, 'include', 'cusparse.h')):
        paths = [os.environ.get('CPATH', ''), str(headers[-1].parent)]
        found['CPATH'] = os.pathsep.join(filter(None, paths))  # after the toolkit's own
    return found
