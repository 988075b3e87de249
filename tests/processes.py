"""Several gloo processes on this machine, started once, that call functions together."""

import multiprocessing
import os
import tempfile
import traceback
from multiprocessing.connection import wait

import torch
from torch import distributed

from nfnet_mm.dependencies import import_yapf

PATIENCE = 300  # seconds for one call


class Processes:
    """So many processes of one process group; they are started by the first call, and again after one that failed.

    Each sees the environment of a process that torch's launcher started, on a machine without an accelerator.
    """

    def __init__(self, world):
        self.world, self.workers, self.pipes = world, [], []

    def _start(self):
        context = multiprocessing.get_context('spawn')
        self.folder = tempfile.TemporaryDirectory()
        for rank in range(self.world):
            ours, theirs = context.Pipe()
            arguments = (rank, self.world, self.folder.name, theirs)
            self.workers.append(context.Process(target=_serve, args=arguments, daemon=True))
            self.pipes.append(ours)
            self.workers[-1].start()
            theirs.close()

    def call(self, function, *args):
        """[function(*args) of each process]; functions, arguments and results are pickled.

        Raises:
            AssertionError: one of them failed, with its traceback.
        """
        if not self.workers:
            self._start()
        for pipe in self.pipes:
            pipe.send((function, args))
        results = {}
        while len(results) < self.world:
            waiting = {pipe: rank for rank, pipe in enumerate(self.pipes) if rank not in results}
            ready = wait(waiting, PATIENCE)
            for pipe in ready:
                rank = waiting[pipe]
                try:
                    good, results[rank] = pipe.recv()
                except (EOFError, OSError):
                    self.workers[rank].join(10)
                    good, results[rank] = False, f'has died with status {self.workers[rank].exitcode}'
                if not good:
                    self.end()
                    raise AssertionError(f'process {rank} of {self.world}: {results[rank]}')
            if not ready:
                self.end()
                raise AssertionError(f'processes {list(waiting.values())} are not ready after {PATIENCE} s')
        return [results[rank] for rank in range(self.world)]

    def end(self):
        for worker in self.workers:
            worker.kill()
            worker.join()
        self.workers, self.pipes = [], []


def _serve(rank, world, folder, pipe):
    torch.set_num_threads(1)
    import_yapf()
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world), CUDA_VISIBLE_DEVICES='-1')
    distributed.init_process_group('gloo', init_method=f'file://{folder}/meet', rank=rank, world_size=world)
    while True:
        function, args = pipe.recv()
        try:
            pipe.send((True, function(*args)))
        except BaseException:
            pipe.send((False, traceback.format_exc()))
