"""What is installed and what the machine has, and for everything that would stop a training, the fix."""

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path

from .dependencies import require

GB = 1e9
_OPTIONAL = {
    'tensorboard': "curves in TensorBoard (vis_backends=[dict(type='TensorboardVisBackend')])",
    'timm': "timm's own models beside ours",
    'pycocotools': 'COCO data sets and their AP',
    'h5py': 'python -m nfnet_mm prepare-nyu',
    'scipy': 'python -m nfnet_mm prepare-nyu',
}


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    what: str
    said: str
    level: str = 'ok'  # 'ok', 'note' (works, with a limit) or 'problem' (training cannot run)
    fix: str = ''


def findings() -> Iterator[Finding]:
    """Everything that is looked at, in order. It takes seconds; nothing is installed or downloaded."""
    for look in (_python, _packages, _torch, _cpu_kernels, _operators, _memory, _disk, _limits, _optional):
        yield from look()


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _spec(name: str) -> ModuleSpec | None:
    try:
        return find_spec(name)
    except ImportError:  # an import hook that hides it
        return None


def _in_process(code: str, timeout: float = 120) -> tuple[int, str]:
    """Run Python code in a process of its own, which an import that crashes cannot take this one down with.

    Returns:
        its exit status and the last line it wrote.
    """
    try:
        done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, timeout=timeout)
    except subprocess.TimeoutExpired:
        return 1, f'no answer within {timeout:.0f} s'
    lines = (done.stdout.strip() or done.stderr.strip() or f'ended with status {done.returncode}').splitlines()
    return done.returncode, lines[-1][:300]


def _python() -> Iterator[Finding]:
    version = '.'.join(map(str, sys.version_info[:3]))
    good = (3, 10) <= sys.version_info < (3, 13)
    fix = 'make an environment with Python 3.11: python3.11 -m venv .venv'
    yield Finding('Python', f'{version} ({sys.executable})', 'ok' if good else 'problem', '' if good else fix)


def _packages() -> Iterator[Finding]:
    """Each framework by itself: a missing one stops only the configs that are built on it."""
    for name in ('mmengine', 'mmcv', 'mmdet', 'mmseg', 'mmpretrain'):
        try:
            require(name)
        except ImportError as error:
            problem, _, command = str(error).splitlines()
            problem = problem.partition(' here: ')[2].rstrip('.')
            absent = _spec(name) is None and 'both installed' not in problem
            if 'operators' in problem and _spec('nfnet_mm.operators'):
                yield Finding(name, f"{_described(name)}; a stand-in takes the place of mmcv's operators")
            elif absent and name != 'mmengine':
                yield Finding(
                    name, 'not installed', 'note', f'for configs that need it: {command.removeprefix("Run: ")}'
                )
            else:
                yield Finding(name, problem, 'problem', command.removeprefix('Run: '))
        else:
            yield Finding(name, _described(name))


def _described(name: str) -> str:
    owners = importlib.metadata.packages_distributions().get(name, [])
    return ', '.join(f'{_version(owner)} ({owner})' for owner in dict.fromkeys(owners)) or 'without metadata'


def _operators() -> Iterator[Finding]:
    """Whether mmcv's compiled operators really load: a file built against another torch is there, and does not."""
    spec = _spec('mmcv')
    if spec is None:
        return
    if not any(any(Path(folder).glob('_ext*')) for folder in spec.submodule_search_locations or ()):
        if _spec('nfnet_mm.operators'):
            yield Finding("mmcv's operators", 'not compiled: the stand-in of nfnet_mm.operators is used', 'note')
        return  # what needs them has said so
    status, said = _in_process('import torch, mmcv._ext; print("compiled, and they load")')
    fix = (
        f'{sys.executable} -m pip uninstall -y onedl-mmcv mmcv && MMCV_WITH_OPS=1 {sys.executable} -m pip install '
        '--no-build-isolation --no-cache-dir onedl-mmcv==2.3.6 (mmcv==2.1.0 for torch < 2.6)'
    )
    yield Finding("mmcv's operators", said, 'problem' if status else 'ok', fix if status else '')


_TORCH = """
import torch, torchvision, numpy
torch.from_numpy(numpy.ones(2))
cuda = torch.cuda.is_available()
cards = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count() if cuda else 0)]
if cards:
    torch.ones(2, device='cuda').sum().item()
nccl = '.'.join(map(str, torch.cuda.nccl.version())) if cards and torch.distributed.is_nccl_available() else ''
names = '; '.join(sorted({f'{card.name}, {card.total_memory / 1e9:.0f} GB' for card in cards}))
versions = ', '.join(f'{one.__name__} {one.__version__}' for one in (torch, torchvision, numpy))
print('|'.join([versions, torch.version.cuda or '', str(len(cards)), names, nccl]))
"""


def _torch() -> Iterator[Finding]:
    """What torch sees of the GPUs, in one process with its import, which takes the most time of all."""
    cards, driver = gpus_and_driver()
    status, said = _in_process(_TORCH)
    if status:
        fix = f'{sys.executable} -m pip install torch torchvision numpy'
        if 'CUDA' in said:
            fix = _driver_fix(driver)
        yield Finding('torch', said, 'problem', fix)
        return
    versions, built, count, names, nccl = said.split('|')
    yield Finding('torch', versions)
    if cards and not built:
        yield Finding('GPU', f'{cards} here, and this torch is built for the CPU', 'problem', 'install torch for CUDA')
    elif cards and count == '0':
        what = f"{cards} here, and torch sees none: torch's CUDA is {built}, the driver {driver}"
        yield Finding('GPU', what, 'problem', _driver_fix(driver))
    elif count == '0':
        yield Finding('GPU', 'none: training runs on the CPU', 'note')
    else:
        yield Finding('GPU', f'{count} x {names}; CUDA {built}, driver {driver or "unknown"}')
        missing = '' if nccl or count == '1' else 'install torch with NCCL to train on several'
        yield Finding('NCCL', nccl or 'none', 'problem' if missing else 'ok', missing)


def _cpu_kernels() -> Iterator[Finding]:
    """Whether the package's own kernels for the CPU work, which are compiled, and kept, for that."""
    status, said = _in_process('from nfnet_mm import cpu_kernels; print(cpu_kernels.state())')
    if status:
        return  # what cannot be imported has said so
    fix = ''
    if said != 'work':
        fix = "models on the CPU take torch's operations, which are slower; a C compiler (gcc) makes these"
    yield Finding('CPU kernels', said, 'note' if fix else 'ok', fix)


def gpus_and_driver(
    devices: Path = Path('/dev'), loaded: Path = Path('/proc/driver/nvidia/version')
) -> tuple[int, str]:
    """(number of NVIDIA GPUs, version of the driver): as its own tool tells, or else as the system shows them."""
    tool = shutil.which('nvidia-smi')
    if tool:
        query = [tool, '--query-gpu=driver_version', '--format=csv,noheader']
        with suppress(subprocess.TimeoutExpired, OSError):
            done = subprocess.run(query, capture_output=True, text=True, timeout=30)
            lines = done.stdout.split() if done.returncode == 0 else []
            if lines:
                return len(lines), lines[0]
    count = len([path for path in devices.glob('nvidia*') if path.name.removeprefix('nvidia').isdigit()])
    said = loaded.read_text() if count and loaded.is_file() else ''
    version = re.search(r'\b\d{3}\.\d+(\.\d+)?\b', said)
    return count, version[0] if version else ''


def _driver_fix(driver: str) -> str:
    return (
        f'update the NVIDIA driver ({driver or "none found"}), or install a torch that is built for an older CUDA; '
        'in a container, start it with --gpus all; CUDA_VISIBLE_DEVICES must not be empty'
    )


def _memory() -> Iterator[Finding]:
    shared = Path('/dev/shm')
    if not shared.is_dir():
        yield Finding('shared memory', 'no /dev/shm', 'note', 'train with --cfg-options train_dataloader.num_workers=0')
        return
    free = shutil.disk_usage(shared).free
    fix = 'start the container with --shm-size=8g or --ipc=host, or train with train_dataloader.num_workers=0'
    yield Finding('shared memory', f'{free / GB:.1f} GB free in /dev/shm', *(() if free > 1e9 else ('note', fix)))


def _disk() -> Iterator[Finding]:
    hub = Path(os.environ.get('TORCH_HOME') or Path(os.environ.get('XDG_CACHE_HOME') or '~/.cache', 'torch'), 'hub')
    for what, folder, level in (('work_dirs', Path('work_dirs'), 'problem'), ('weights', hub.expanduser(), 'note')):
        there = next(one for one in (folder.absolute(), *folder.absolute().parents) if one.exists())
        free = shutil.disk_usage(there).free
        said = f'{free / GB:.1f} GB free for {folder}'
        if not os.access(there, os.W_OK):
            where = '--work-dir' if level == 'problem' else 'the variable TORCH_HOME'
            yield Finding(f'disk, {what}', f'{there} cannot be written', level, f'name another folder with {where}')
        elif free < 5 * GB:
            fix = (
                'make room, or keep fewer checkpoints (default_hooks.checkpoint.max_keep_ckpts); one of F0 takes 0.6 GB'
            )
            yield Finding(f'disk, {what}', said, 'note' if free > GB else level, fix)
        else:
            yield Finding(f'disk, {what}', said)


def _limits() -> Iterator[Finding]:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    few = soft < 1024
    yield Finding(
        'open files', f'{soft} at most', 'note' if few else 'ok', f'ulimit -n {min(hard, 65536)}' if few else ''
    )
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1
    threads = os.environ.get('OMP_NUM_THREADS')
    many = bool(threads and threads.isdigit() and int(threads) > cores)
    said = f'{cores} cores, OMP_NUM_THREADS={threads or "not set"}'
    yield Finding('CPU', said, 'note' if many else 'ok', f'export OMP_NUM_THREADS={cores}' if many else '')


def _optional() -> Iterator[Finding]:
    for name, use in _OPTIONAL.items():
        if _spec(name) is None:
            yield Finding(name, f'not installed (for: {use})', 'note', f'{sys.executable} -m pip install {name}')
        else:
            yield Finding(name, _version(name) or 'installed')


def report(write: Callable[[str], None] = print) -> bool:
    """Write a line for each finding, and its fix under it.

    Returns:
        whether training can run: no finding is a problem.
    """
    problems = 0
    for one in findings():
        problems += one.level == 'problem'
        write(f'{one.level:8} {one.what:18} {one.said}')
        if one.fix:
            write(f'{"":8} {"":18} -> {one.fix}')
    write(
        f'{problems} problem{"s" * (problems != 1)}: ' + ('see the lines with ->' if problems else 'training can run')
    )
    return not problems
