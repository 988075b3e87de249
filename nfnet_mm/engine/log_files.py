"""Let a run go on when what it logs cannot be written."""

import functools
import logging
from collections.abc import Callable
from typing import Any

from mmengine.logging import print_log
from mmengine.runner import Runner

_WRITING = ('add_config', 'add_graph', 'add_image', 'add_scalar', 'add_scalars')


def go_on_without_logs(runner: Runner) -> None:
    """Let the runner's ``scalars.json``, TensorBoard and the like lack lines when the disk is full, with an ERROR.

    mmengine would end the run there, while a checkpoint may wait for room.
    """
    for name, backend in runner.visualizer._vis_backends.items():
        told: list[str] = []
        for method in _WRITING:
            if hasattr(backend, method):
                setattr(backend, method, functools.partial(_write, getattr(backend, method), name, told))


def _write(write: Callable[..., Any], name: str, told: list[str], *args: Any, **kwargs: Any) -> Any:
    try:
        return write(*args, **kwargs)
    except OSError as error:
        why = str(error)
        if why not in told:
            told.append(why)
            print_log(f'what {name} logs is NOT WRITTEN: {why}. Training goes on', 'current', logging.ERROR)
        return None
