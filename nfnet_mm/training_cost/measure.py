"""Training steps of one or two configs in alternation, each in a process of its own."""

import copy
import multiprocessing
import os
import resource
import signal
import statistics
import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import import_module
from multiprocessing.connection import Connection
from typing import Any

import torch
from mmengine import Config, MessageHub
from mmengine.logging import MMLogger
from mmengine.model import revert_sync_batchnorm
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, init_default_scope

from nfnet_mm.analysis.cost import MacCounter
from nfnet_mm.errors import UserError
from nfnet_mm.run.config import check_amp_device, load_config

from .batch import made_up_batch


@dataclass
class Result:
    """What a training step of a config costs."""

    name: str
    parameters: int = 0
    trained: int = 0  # parameters that get a gradient
    batch: int = 0  # images that the model sees in a step
    size: tuple[int, ...] = ()  # height and width of the batch's pictures, as the model gets them
    macs: float = 0.0  # multiply-adds of the forward pass of training, for one image
    uncounted: tuple[str, ...] = ()  # operators of mmcv in the model whose multiply-adds are not counted
    seconds: list[float] = field(default_factory=list)  # of each step
    memory: int | None = None  # bytes that the steps took at their peak
    failure: str = ''  # why seconds and memory are missing

    @property
    def step(self) -> float | None:
        """Seconds of a step, the median."""
        return statistics.median(self.seconds) if self.seconds else None


def compare(
    names: Sequence[str],
    batch_size: int | None = None,
    size: tuple[int, int] | None = None,
    pairs: int = 5,
    options: Mapping[str, Any] | None = None,
) -> list[Result]:
    """Count and measure training steps of configs.

    A step is forward, backward and update with the config's optimizer wrapper, from random weights, on a made-up batch.
    The configs take turns, so that what else the machine does falls on all alike.

    Args:
        names: of configs, as on a command line.
        batch_size: images of a batch; by default each config's own.
        size: height and width of the images; by default each config's train pipeline decides.
        pairs: measured steps of each, after one that is not.
        options: values of the first config to replace, by dotted key.

    Raises:
        UserError: a config cannot be read, or its model or batch not be made.
    """
    context = multiprocessing.get_context('spawn')  # a fork would inherit memory, threads and CUDA
    workers = []
    results = []
    try:
        for i, name in enumerate(names):
            here, there = context.Pipe()
            args = (there, name, dict(options or {}) if i == 0 else {}, batch_size, size)
            worker = context.Process(target=_work, args=args, daemon=True)
            worker.start()
            there.close()
            workers.append((worker, here))
            counted = _ask(worker, here)
            if isinstance(counted, UserError):
                raise counted
            results.append(counted if isinstance(counted, Result) else Result(name, failure=str(counted)))
        for turn in range(pairs + 1):  # the first of each is not counted
            print(f'step {turn + 1} of {pairs + 1}', file=sys.stderr, flush=True)  # which may take minutes on a CPU
            for result, (worker, here) in zip(results, workers):
                if not result.failure:
                    answer = _ask(worker, here, 'step')
                    if isinstance(answer, float):
                        result.seconds.append(answer)
                    else:
                        result.failure = str(answer)
        for result, (worker, here) in zip(results, workers):
            result.seconds = result.seconds[1:]
            if not result.failure:
                result.memory = _ask(worker, here, 'memory')
    finally:
        for worker, here in workers:
            here.close()
            worker.join(5)
            worker.kill()
    return results


def _ask(worker: Any, here: Connection, question: str | None = None) -> Any:
    """A worker's answer, or in words how it ended."""
    try:
        if question:
            here.send(question)
        return here.recv()
    except (EOFError, BrokenPipeError, ConnectionResetError):
        worker.join()
        if worker.exitcode == -9:
            return 'its process was killed, as the system does when memory runs out: try --batch-size 1'
        return f'its process ended with status {worker.exitcode}; its error stands above'


def _work(
    there: Connection, name: str, options: dict[str, Any], batch_size: int | None, size: tuple[int, int] | None
) -> None:
    """Answer the parent's questions; in a process of its own."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends this process
    warnings.filterwarnings('ignore')
    MMLogger.get_instance('nfnet_mm.cost', log_level='ERROR')
    try:
        step = _Step(name, options, batch_size, size)
    except UserError as error:
        there.send(UserError(f'{name}: {error}' if name not in str(error) else str(error)))
        return
    except torch.OutOfMemoryError:
        there.send('out of memory: try --batch-size 1')
        return
    there.send(step.result)
    try:
        while True:
            question = there.recv()
            try:
                there.send(step.seconds() if question == 'step' else step.memory())
            except torch.OutOfMemoryError:
                there.send('out of memory: try --batch-size 1')
    except EOFError:  # the parent has all it wants
        return


class _Step:
    """A model with its optimizer and batch."""

    def __init__(self, name: str, options: dict[str, Any], batch_size: int | None, size: tuple[int, int] | None):
        cfg = load_config(name, options)
        check_amp_device(cfg)
        if not cfg.get('model') or not cfg.get('optim_wrapper'):
            raise UserError('the config has no model and optim_wrapper to train with')
        init_default_scope(cfg.get('default_scope') or 'mmengine')
        # imports, which come with a first step, are no cost of it
        MODELS.get('nfnet_mm.NFNet')
        for module in ('torch._dynamo', 'mmcv.ops'):
            with suppress(ImportError):
                import_module(module)
        self.device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
        torch.manual_seed(0)
        self.batch = made_up_batch(cfg, batch_size, size)
        self.before = self._now()
        self.model: Any = _model(cfg, size).to(self.device).train()
        self.optim_wrapper = build_optim_wrapper(self.model, cfg.optim_wrapper)
        for counter in ('iter', 'epoch'):  # some losses and augmentations warm up
            MessageHub.get_current_instance().update_info(counter, 0)
        for counter in ('max_iters', 'max_epochs'):
            MessageHub.get_current_instance().update_info(counter, 1000)
        self.result = self._counted(name)

    def _counted(self, name: str) -> Result:
        with MacCounter() as counter, torch.no_grad(), _deformable(self.model, counter):
            data = self.model.data_preprocessor(copy.deepcopy(self.batch), True)
            self.model(**data, mode='loss')
        inputs = data['inputs']
        while isinstance(inputs, dict):  # views or frames of the same pictures
            inputs = next(iter(inputs.values()))
        first = inputs[0] if isinstance(inputs, (list, tuple)) else inputs
        count = len(inputs) if first.dim() == 3 else len(first)  # pictures as they are, or batches of them
        sizes = [p.numel() for p in self.model.parameters() if p.requires_grad]
        return Result(
            name,
            parameters=sum(p.numel() for p in self.model.parameters()),
            trained=sum(sizes),
            batch=count,
            size=tuple(first.shape[-2:]),
            macs=counter.macs / count,
            uncounted=tuple(sorted({type(one).__name__ for one in self.model.modules() if _is_uncounted(one)})),
        )

    def seconds(self) -> float:
        """Seconds of one step."""
        batch = copy.deepcopy(self.batch)  # preprocessing changes samples
        self._wait()
        start = time.perf_counter()
        self.model.train_step(batch, self.optim_wrapper)
        self._wait()
        return time.perf_counter() - start

    def _wait(self) -> None:
        if self.device.type == 'cuda':
            torch.cuda.synchronize()

    def _now(self) -> int:
        if self.device.type == 'cuda':
            torch.cuda.reset_peak_memory_stats()
            return 0
        try:
            with open('/proc/self/clear_refs', 'w') as file:
                file.write('5')  # the peak begins anew
            with open('/proc/self/statm') as file:
                return int(file.read().split()[1]) * os.sysconf('SC_PAGE_SIZE')
        except OSError:  # not Linux
            return _peak_of_process()

    def memory(self) -> int:
        """Bytes at the peak: the allocator's on CUDA, else those by which the process grew."""
        return torch.cuda.max_memory_allocated() if self.device.type == 'cuda' else _peak_of_process() - self.before


def _peak_of_process() -> int:
    with suppress(OSError), open('/proc/self/status') as file:
        for line in file:
            if line.startswith('VmHWM:'):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _model(cfg: Config, size: tuple[int, int] | None) -> Any:
    """The config's model with random weights: no file is read, nothing downloaded; nor, of a given size, padded."""
    model = copy.deepcopy(cfg.model)
    _without_weights(model)
    model.setdefault('data_preprocessor', cfg.get('data_preprocessor'))
    if size and model['data_preprocessor']:
        model['data_preprocessor'].pop('batch_augments', None)
        if 'size' in model['data_preprocessor']:
            model['data_preprocessor']['size'] = size
    built = revert_sync_batchnorm(MODELS.build(model))
    built.init_weights()
    return built


def _without_weights(part: Any) -> None:
    for value in part.values() if isinstance(part, dict) else part if isinstance(part, (list, tuple)) else ():
        _without_weights(value)
    if isinstance(part, dict):
        if part.get('pretrained') is not None:
            part['pretrained'] = None
        init = part.get('init_cfg')
        if isinstance(init, dict) and 'checkpoint' in init:
            part['init_cfg'] = None


def _is_uncounted(module: torch.nn.Module) -> bool:
    return type(module).__module__.startswith('mmcv.ops') and 'DeformConv' not in type(module).__name__


class _deformable:
    """Counts the deformable convs of mmcv, whose own kernels are no operations of torch."""

    def __init__(self, model: torch.nn.Module, counter: MacCounter):
        self.model, self.counter = model, counter

    def __enter__(self) -> None:
        self.handles: list[Any] = []
        self.before: dict[torch.nn.Module, int] = {}
        for module in self.model.modules():
            if type(module).__module__.startswith('mmcv.ops') and 'DeformConv' in type(module).__name__:
                self.handles += [
                    module.register_forward_pre_hook(lambda one, _: self.before.update({one: self.counter.macs})),
                    module.register_forward_hook(self._after),
                ]

    def _after(self, module: Any, _: Any, out: torch.Tensor) -> None:
        positions = out.numel() // out.shape[1]
        offsets = getattr(module, 'conv_offset', None)
        expected = positions * (module.weight.numel() + (0 if offsets is None else offsets.weight.numel()))
        # where torch's own operations, or torchvision's, compute it, all of it was counted as it ran
        self.counter.macs = max(self.counter.macs, self.before[module] + expected)

    def __exit__(self, *_: object) -> None:
        for handle in self.handles:
            handle.remove()
