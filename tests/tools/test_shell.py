"""The shell scripts of tools/: arguments that are missing or swapped are told before anything is started."""

import argparse
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from nfnet_mm.commands import train

ROOT = Path(__file__).parents[2]
CONFIG = 'configs/mask_rcnn_nfnet_f0_fpn.py'
TRAIN, TEST, SLURM = 'dist_train', 'dist_test', 'slurm_train'


def script(name, *args, **env):
    """Run a script with a ``python`` and an ``srun`` that only print what they were given."""
    done = subprocess.run(
        ['bash', ROOT / f'tools/{name}.sh', *args],
        cwd=ROOT,
        env={**os.environ, 'PYTHON': 'echo', **env},
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    'name,args,message',
    [
        (TRAIN, [], 'CONFIG and PROCESSES are needed, got 0 arguments'),
        (TRAIN, [CONFIG], 'CONFIG and PROCESSES are needed, got 1 arguments'),
        (TRAIN, ['8', CONFIG], f"PROCESSES (the second argument) must be a number, got '{CONFIG}'"),
        (TRAIN, [CONFIG, '0'], "PROCESSES (the second argument) must be a number, got '0'"),
        (TRAIN, [CONFIG, '--amp'], "PROCESSES (the second argument) must be a number, got '--amp'"),
        (TRAIN, ['none.py', '8'], "CONFIG (the first argument): there is no file 'none.py'"),
        (TEST, [CONFIG, '8'], 'CONFIG, CHECKPOINT and PROCESSES are needed, got 2 arguments'),
        (TEST, [CONFIG, '8', 'x.pth'], "PROCESSES (the third argument) must be a number, got 'x.pth'"),
        (TEST, ['x.pth', CONFIG, '8'], "CONFIG (the first argument): there is no file 'x.pth'"),
        (SLURM, ['gpu', 'job', CONFIG], 'PARTITION, JOB_NAME, CONFIG and WORK_DIR are needed, got 3 arguments'),
        (SLURM, [CONFIG, 'work', 'gpu', 'job'], "CONFIG (the third argument): there is no file 'gpu'"),
        (SLURM, ['gpu', 'job', CONFIG, '--amp'], "WORK_DIR (the fourth argument) must be a folder, got '--amp'"),
    ],
)
def test_missing_or_swapped_arguments(name, args, message):
    code, out, errors = script(name, *args)
    assert code == 2 and out == ''
    first, usage, synopsis, *_ = errors.splitlines()
    assert first == f'error: {message}' and usage.startswith('usage: ') and f'tools/{name}.sh ' in synopsis


def test_what_the_scripts_start(tmp_path):
    code, out, _ = script(TRAIN, CONFIG, '2', '--amp', PORT='29511', NNODES='3', NODE_RANK='1', MASTER_ADDR='10.0.0.1')
    assert code == 0 and out.split()[2:] == [
        *('--nnodes=3', '--node_rank=1', '--master_addr=10.0.0.1', '--master_port=29511', '--nproc_per_node=2'),
        *(f'{ROOT}/tools/train.py', CONFIG, '--launcher', 'pytorch', '--amp'),
    ]
    code, out, _ = script(TRAIN, 'mask_rcnn_nfnet_f0_fpn', '2')
    assert code == 0 and f'{ROOT}/tools/train.py mask_rcnn_nfnet_f0_fpn --launcher' in out
    code, _, errors = script(TRAIN, CONFIG, '2', MAX_RESTARTS='often')
    assert code == 2 and errors.startswith("error: MAX_RESTARTS must be a number, got 'often'")
    code, _, errors = script(TRAIN, CONFIG, '2', MAX_RESTARTS='3')
    assert code == 2 and 'each time anew: add --resume auto' in errors
    code, out, _ = script(TRAIN, CONFIG, '2', '--resume', 'auto', MAX_RESTARTS='3')
    assert code == 0 and f' --nproc_per_node=2 --max-restarts=3 {ROOT}/tools/train.py {CONFIG} ' in out
    code, out, _ = script(TEST, 'mmdet::ssd/ssd300_coco.py', 'x.pth', '4', '--tta')
    started = f'--nproc_per_node=4 {ROOT}/tools/test.py mmdet::ssd/ssd300_coco.py x.pth --launcher pytorch --tta'
    assert code == 0 and out.strip().endswith(started)
    (tmp_path / 'srun').write_text('#!/bin/sh\necho "$@"\n')
    (tmp_path / 'srun').chmod(0o755)
    path = f'{tmp_path}:{os.environ["PATH"]}'
    code, out, _ = script(SLURM, 'gpu', 'job', CONFIG, 'work', '--resume', GPUS='16', PATH=path)
    assert code == 0 and out.startswith('-p gpu --job-name=job --gres=gpu:8 --ntasks=16 --ntasks-per-node=8 ')
    assert out.strip().endswith(f'{ROOT}/tools/train.py {CONFIG} --work-dir=work --launcher=slurm --resume')


def test_slurm_s_numbers_and_a_machine_without_it(tmp_path):
    args = (SLURM, 'gpu', 'job', CONFIG, 'work')
    assert "error: GPUS must be a number, got 'all'" in script(*args, GPUS='all')[2]
    assert "error: GPUS_PER_NODE must be a number, got '0'" in script(*args, GPUS_PER_NODE='0')[2]
    for tool in ('bash', 'dirname', 'cat'):
        (tmp_path / tool).symlink_to(shutil.which(tool))
    code, _, errors = script(*args, PATH=str(tmp_path))
    assert code == 2 and errors.startswith('error: there is no srun on this machine')


@pytest.mark.parametrize('status', [0, 1, 75])
def test_the_documented_job_queues_itself_again(tmp_path, status):
    """With a ``srun`` that ends as a run would, and a ``scontrol`` that notes what it is asked."""
    page = (ROOT / 'docs/checkpoints.md').read_text()
    (tmp_path / 'job').write_text(re.search(r'```bash\n(#!/bin/bash\n.*?)```', page, re.DOTALL)[1])
    for name, does in (('srun', f'echo "$@" >> asked; exit {status}'), ('scontrol', 'echo "$@" >> asked')):
        (tmp_path / name).write_text(f'#!/bin/sh\n{does}\n')
        (tmp_path / name).chmod(0o755)
    env = {'PATH': f'{tmp_path}:{os.environ["PATH"]}', 'SLURM_JOB_ID': '17'}
    done = subprocess.run(['bash', 'job'], cwd=tmp_path, env={**os.environ, **env}, check=False)
    asked = (tmp_path / 'asked').read_text().splitlines()
    assert done.returncode == status and asked[1:] == ['requeue 17'] * (status == 75)
    options = asked[0][asked[0].index('tools/train.py') :].split()[1:]
    parser = argparse.ArgumentParser()
    train.add_arguments(parser)
    assert parser.parse_args(options).resume == 'auto'
