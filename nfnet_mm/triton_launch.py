"""Launching Triton kernels, for which there is another way where Triton fails."""

import logging
import os
from collections.abc import Callable

import torch
from mmengine.logging import print_log
from torch import Tensor

INTERPRETED = os.environ.get('TRITON_INTERPRET') == '1'
NAMES = {torch.float32: 'float32', torch.float16: 'float16', torch.bfloat16: 'bfloat16'}  # of the types kernels take


def launched(launch: Callable[[], object], tensor: Tensor, without: str, cost: str) -> bool:
    """Call ``launch`` on the device of a tensor; whether it worked.

    Args:
        launch: starts the kernel.
        tensor: one of those that it is for.
        without: how the warning begins, if it fails: what goes on without Triton.
        cost: how the warning ends: what that takes.
    """
    try:
        with torch.cuda.device_of(tensor):
            launch()
    except Exception as error:  # no C compiler for its launcher, a GPU that it does not know, another version's syntax
        if INTERPRETED:
            raise
        line = (str(error).splitlines() or [''])[0]
        what = f'{without} without Triton, which failed here ({type(error).__name__}: {line})'
        print_log(f"{what}: it takes torch's own kernels, {cost}", 'current', logging.WARNING)
        return False
    return True
