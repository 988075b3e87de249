"""The device of a run: whether it can be used, what a GPU needs of the config, a word on one that is left unused."""

import os
from typing import TYPE_CHECKING, Any

import torch
from mmengine import Config
from mmengine.device import get_device

from nfnet_mm.doctor import gpus_and_driver
from nfnet_mm.errors import UserError, short

if TYPE_CHECKING:
    from mmengine.runner import Runner

_LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')


def is_first_process() -> bool:
    """Whether this is the process that speaks, before a process group tells its rank."""
    return os.environ.get('RANK', os.environ.get('SLURM_PROCID', '0')) == '0'


def usable_device(name: str | None) -> str:
    """The device that a person asks for, or without a name the best one here.

    Raises:
        UserError: it is not here, or holds no numbers, as 'meta'.
    """
    device = name or get_device()
    try:
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        here = ', '.join(['cpu', *(f'cuda:{i}' for i in range(torch.cuda.device_count()))])
        why = str(error).splitlines()[0]
        raise UserError(f'device {device!r} cannot be used here, where there is {here}: {short(why)}') from None
    return device


def say_unused_gpu() -> None:
    """Say in one line that a GPU is here and the run goes on the CPU, as with a driver too old for torch's CUDA."""
    if get_device() != 'cpu' or os.environ.get('CUDA_VISIBLE_DEVICES') in ('', '-1'):  # hidden on purpose
        return
    count, driver = gpus_and_driver()
    if count:
        why = f'torch {torch.__version__} is built for CUDA {torch.version.cuda}, the driver is {driver or "unknown"}'
        what = f'{count} NVIDIA GPU{"s" * (count > 1)} here, and torch cannot use {"them" if count > 1 else "it"}'
        print(f'{what} ({why}): this runs on the CPU; `python -m nfnet_mm doctor` says the fix', flush=True)


def use_cuda_well(cfg: Config) -> None:
    """Where the run is on CUDA: pinned memory for batches, and TF32 as the config says.

    ``pin_memory`` of a data loader is turned on unless the config states it. ``env_cfg.tf32``, True or False, states
    whether float32 convolutions and products of matrices may use TF32, whose significand has 10 bits; by default both
    may not for products and may for convolutions, which is torch's own choice.
    """
    tf32 = (cfg.get('env_cfg') or {}).get('tf32')
    if tf32 is not None:
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = bool(tf32)
    if get_device() != 'cuda':
        return
    for key in _LOADERS:
        loader: dict[str, Any] | None = cfg.get(key)
        if loader is not None:
            loader.setdefault('pin_memory', True)


def copy_without_waiting(runner: 'Runner') -> None:
    """Have pinned batches copied to a GPU while the host goes on; a pageable one is copied as ever."""
    model: Any = runner.model
    preprocessor: Any = getattr(getattr(model, 'module', model), 'data_preprocessor', None)
    if get_device() == 'cuda' and hasattr(preprocessor, '_non_blocking'):
        preprocessor._non_blocking = True
