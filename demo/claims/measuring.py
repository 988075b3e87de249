"""Measurements: one in this process, or all that are wanted, each in a process of its own."""

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from nfnet_mm.errors import UserError

from . import finished, load_claim
from .finished import Job

ROOT = Path(__file__).resolve().parents[2]


def measure(job: Job, folder: Path) -> None:
    """Measure a job in this process, and keep what it found."""
    if 'OMP_NUM_THREADS' in os.environ:
        torch.set_num_threads(int(os.environ['OMP_NUM_THREADS']))
    before = time.process_time()
    files = folder / ('files_quick' if job.quick else 'files')
    found = load_claim(job.letter).measure(job.seed, job.quick, files)
    finished.write(job, folder, found, time.process_time() - before)


def run_all(jobs: Sequence[Job], folder: Path, side_by_side: int) -> None:
    """Measure each job in a process of its own, those that time something one after another, at the end.

    Raises:
        UserError: a job failed; the others were finished.
    """
    together = [job for job in jobs if not load_claim(job.letter).alone]
    failed = [
        *_run(together, folder, side_by_side),
        *_run([job for job in jobs if load_claim(job.letter).alone], folder, 1),
    ]
    if failed:
        logs = ', '.join(str(_log(job, folder)) for job in failed)
        raise UserError(f'{len(failed)} of {len(jobs)} measurements failed; what they said is in {logs}')


def _log(job: Job, folder: Path) -> Path:
    return job.path(folder).with_suffix('.log')


def _run(jobs: Sequence[Job], folder: Path, side_by_side: int) -> list[Job]:
    """Run jobs, so many at a time; those that failed."""
    waiting, running, failed = list(jobs), {}, []
    try:
        while waiting or running:
            while waiting and len(running) < side_by_side:
                job = waiting.pop(0)
                print(f'claim {job.letter}, seed {job.seed}', flush=True)
                running[job] = _start(job, folder)
            time.sleep(0.2)
            for job, process in list(running.items()):
                if process.poll() is None:
                    continue
                del running[job]
                if process.returncode:
                    failed.append(job)
                    print(f'claim {job.letter}, seed {job.seed}: failed', flush=True)
    finally:
        for process in running.values():  # an interruption
            process.terminate()
    return failed


def _start(job: Job, folder: Path) -> subprocess.Popen:
    log = _log(job, folder)
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, '-W', 'ignore', '-m', 'demo.claims', '--one', job.letter, str(job.seed)]
    command += ['--work-dir', str(folder), *['--quick'] * job.quick]
    paths = os.pathsep.join(filter(None, (str(ROOT), os.environ.get('PYTHONPATH'))))
    with log.open('wb') as file:
        return subprocess.Popen(command, stdout=file, stderr=file, env=dict(os.environ, PYTHONPATH=paths))
