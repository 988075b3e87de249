"""Which precision autocast asks for, and leaving it, on any device and version of torch."""

from contextlib import AbstractContextManager, nullcontext

import torch

_BEFORE_2_4 = ('cpu', 'cuda', 'xpu')


def autocast_dtype(device: str) -> torch.dtype | None:
    """What autocast runs convs in on a type of device; None where it is off, or is not known there."""
    if not _available(device):
        return None
    if hasattr(torch, 'get_autocast_dtype'):  # from torch 2.4 on
        return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
    if device == 'cpu':
        return torch.get_autocast_cpu_dtype() if torch.is_autocast_cpu_enabled() else None
    return torch.get_autocast_gpu_dtype() if torch.is_autocast_enabled() else None


def autocast(device: str, dtype: torch.dtype | None) -> AbstractContextManager:
    """Autocast to a dtype on a type of device; none at all for None."""
    if not _available(device) or autocast_dtype(device) == dtype:  # torch's own context takes 15 us
        return nullcontext()
    return torch.autocast(device, dtype=dtype, enabled=dtype is not None)


def _available(device: str) -> bool:
    if hasattr(torch.amp, 'is_autocast_available'):
        return torch.amp.is_autocast_available(device)
    return device in _BEFORE_2_4
