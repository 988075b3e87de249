"""mmcv without its compiled operators, which takes no compiler; or with them.

They are built once from source, in sight of the user, and kept for the user's other checkouts.
"""

import os
import platform
import re
import shutil
import subprocess
import tarfile
import zipfile
from contextlib import suppress
from pathlib import Path

from set_up.machine import SetupError, ask, cuda_places, find_compiler, find_nvcc
from set_up.process import pip, run, say

_CPU_ONLY = 'the operators of mmcv are built for the CPU only; on the GPU those of nfnet_mm.operators go first'


def user_cache():
    return Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache')


def torch_facts(at):
    facts = ask(
        at.python,
        'import json, torch; ok = torch.cuda.is_available(); print(json.dumps(dict('
        'version=torch.__version__, cuda=torch.version.cuda, gpu=ok, arch=sorted({"sm%d%d" % '
        'torch.cuda.get_device_capability(i) for i in range(torch.cuda.device_count())} if ok '
        'else []))))',
    )
    if not facts:
        raise SetupError(f'torch is installed in {at.venv} but cannot be imported: delete .venv and run make again.')
    return facts


def cuda_flavour(torch):
    """'cuda13.0-sm90' where the operators are to be built for the GPU, else 'cpu'."""
    if os.environ.get('MMCV_OPS') == 'cpu' or not (torch['gpu'] or os.environ.get('FORCE_CUDA') == '1'):
        return 'cpu'
    nvcc = find_nvcc()
    if not nvcc:
        say(f'  There is a GPU but no nvcc: {_CPU_ONLY}.')
        return 'cpu'
    out = subprocess.run([nvcc, '--version'], stdout=subprocess.PIPE, stderr=subprocess.STDOUT).stdout.decode()
    have = (re.search(r'release (\d+\.\d+)', out) or ['', 'of unknown version'])[1]
    if have.split('.')[0] != str(torch['cuda']).split('.')[0]:  # torch refuses to compile with another major version
        say(f'  nvcc is CUDA {have} and torch needs {torch["cuda"]}: {_CPU_ONLY}.')
        return 'cpu'
    arch = os.environ.get('TORCH_CUDA_ARCH_LIST', '').replace(' ', '_').replace(';', '_') or '_'.join(torch['arch'])
    return f'cuda{have}-{arch}'


def wheel_folder(at, version, flavour, torch=None):
    """The per-user folder of the compiled wheel: everything its machine code depends on is in the name."""
    libc, torch = ''.join(platform.libc_ver()), torch or at.pin('torch') + '*'
    name = f'mmcv{at.pin(at.mmcv)}-py{version}-torch{torch}-{flavour}-{platform.machine()}-{libc}'
    return user_cache() / 'nfnet_mm' / 'wheels' / name


def ops_problem(at, key):
    """Why the installed mmcv will not do, or None. `key` names what it must have been built for (see wheel_folder)."""
    if not at.built_for.exists() or at.built_for.read_text() != key:
        return 'it was not built for this version of torch'
    cuda = ask(at.python, 'import json, mmcv._ext, mmcv.ops; print(json.dumps(mmcv.ops.get_compiling_cuda_version()))')
    if cuda is None:
        return 'mmcv._ext cannot be imported'
    return 'it was compiled without CUDA' if '-cuda' in key and cuda == 'not available' else None


def compile_news(line):
    """Ninja's '[12/78] c++ ...' as progress: of what this run has to compile."""
    step = re.match(r'\[(\d+)/(\d+)\]', line)
    if not step:
        return None
    done, of = int(step[1]), int(step[2])
    return f'compiling the operators of mmcv: {done} of {of} files ({100 * done // of}%)'


def build_wheel(at, flavour):
    """Compile mmcv from its source package in .venv/build and return the wheel. Ninja goes on where it was stopped."""
    cxx, version = find_compiler(), at.pin(at.mmcv)
    stem = f'{at.mmcv.replace("-", "_")}-{version}'
    source = at.build / stem
    archive = at.build / f'{stem}.tar.gz'
    if not source.is_dir():
        if archive.exists():
            archive.unlink()  # pip would take it as it is, whole or not
        download = ['download', '--no-deps', '--no-build-isolation', '--no-binary', ':all:', '-d', at.build]
        pip(at, 'fetching the source of mmcv', *download, f'{at.mmcv}=={version}')
        unpacked = at.build / 'unpacked'
        shutil.rmtree(unpacked, ignore_errors=True)
        with tarfile.open(archive) as tar:
            tar.extractall(unpacked, **({'filter': 'data'} if hasattr(tarfile, 'data_filter') else {}))
        (unpacked / stem).rename(source)  # so that a half-unpacked tree never bears this name
    log, wheels = at.build / 'mmcv.log', at.build / 'wheels'
    shutil.rmtree(wheels, ignore_errors=True)
    earlier = sum(1 for _ in source.glob('build/**/*.o'))
    kept = f', {earlier} files of an interrupted run are kept' if earlier else ''
    takes = 'minutes' if flavour == 'cpu' else 'an hour of one core, 2.7 GB for each at work'
    say(f'- compiling the operators of mmcv, once: {takes}{kept} (all of its output goes to {log})')
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1
    each = 2e9 if flavour == 'cpu' else 3e9  # some files take 1 GB, with nvcc 2.7
    memory = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / each
    env = dict(os.environ, MMCV_WITH_OPS='1', CXX=cxx)
    env.setdefault('MAX_JOBS', str(int(max(1, min(cpus, memory)))))
    # Debugging symbols are 95% of the wheel and half of the compiler's time. CPPFLAGS come after Python's own flags,
    # where CFLAGS would replace them, -O3 too.
    env['CPPFLAGS'] = (env.get('CPPFLAGS', '') + ' -g0').strip()
    if flavour == 'cpu':
        env.update(CUDA_VISIBLE_DEVICES='', FORCE_CUDA='0')  # a GPU without a usable nvcc must not be seen
    else:
        env.update(cuda_places(find_nvcc(), at.site()))
    log.write_bytes(b'')
    command = [str(at.python), '-m', 'pip', 'wheel', '-v', '.', '--no-deps', '--no-build-isolation', '-w', str(wheels)]
    try:
        run(at, command, log, 'compiling the operators of mmcv', compile_news, cwd=str(source), env=env)
    except SetupError as error:
        say('\n'.join(line[:300] for line in log.read_text(errors='replace').splitlines()[-25:]))
        without = ' To do without CUDA in mmcv, set MMCV_OPS=cpu in the environment.' if flavour != 'cpu' else ''
        raise SetupError(f'{error}{without}') from None
    for wheel in wheels.glob('*.whl'):
        if any(name.startswith('mmcv/_ext') for name in zipfile.ZipFile(wheel).namelist()):
            return wheel
    raise SetupError(f'mmcv was built without its operators: read {log}, mend the cause and run make again.')


def has_ops(at):
    return any(at.site().glob('mmcv/_ext*'))


def ensure_mmcv(at, version):
    """Install mmcv without operators; one that is there stays, and so do its operators if they work.

    `version` is that of Python.
    """
    code = f'import importlib.metadata as m, json, mmcv; print(json.dumps(m.version({at.mmcv!r})))'
    problem = None if ask(at.python, code) == at.pin(at.mmcv) else 'another version is pinned'
    if not problem and has_ops(at):
        torch = torch_facts(at)
        problem = ops_problem(at, wheel_folder(at, version, cuda_flavour(torch), torch['version']).name)
    if not problem:
        return
    if has_ops(at):
        say(f'  mmcv is installed anew, without its compiled operators ({problem}): `make ops` compiles them again.')
    # Built where torch is not to be seen, it is built without operators. pip's cache may hold a wheel with some, made
    # for another torch, under the same name.
    again = ['install', '--no-deps', '--force-reinstall', '--no-cache-dir']
    pip(at, 'installing mmcv', *again, f'{at.mmcv}=={at.pin(at.mmcv)}')
    if at.built_for.exists():
        at.built_for.unlink()
    if has_ops(at):
        raise SetupError(
            'mmcv was installed with operators, though none were to be built: pip must build it apart from .venv; '
            'unset PIP_NO_BUILD_ISOLATION and run make again.'
        )


def ensure_ops(at, version):
    """Install mmcv with working operators: from the user's cache of wheels if it is there, else compiled.

    `version` is that of Python. A cached wheel whose operators do not load (built elsewhere, damaged) is built anew and
    replaced.
    """
    torch = torch_facts(at)
    flavour = cuda_flavour(torch)
    folder = wheel_folder(at, version, flavour, torch['version'])

    def install(wheel):
        pip(at, f'installing mmcv ({wheel})', 'install', '--no-deps', '--force-reinstall', wheel)
        at.built_for.write_text(folder.name)
        return ops_problem(at, folder.name)

    problem, cached = ops_problem(at, folder.name), sorted(folder.glob('*.whl'))
    if problem and cached:
        with suppress(SetupError):
            problem = install(cached[0])
    if problem:
        wheel = build_wheel(at, flavour)
        problem = install(wheel)
        if problem:
            at.built_for.unlink()
            log = at.build / 'mmcv.log'
            raise SetupError(f'mmcv was compiled, yet {problem}: read {log}, delete {at.build} and run make again.')
        keep(wheel, folder)


def keep(wheel, folder):
    """Copy `wheel` to the user's cache, in one step: another checkout may be reading."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        part = folder / f'{os.getpid()}.part'
        shutil.copyfile(wheel, part)
        os.replace(part, folder / wheel.name)
    except OSError as error:
        say(f'  (the wheel could not be kept for other checkouts: {error})')
