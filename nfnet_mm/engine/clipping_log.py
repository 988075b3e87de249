"""How much AGC clips of each layer, in a file beside the log."""

import json
import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.optim import OptimWrapperDict
from mmengine.runner import Runner

from nfnet_mm.errors import check_positive
from nfnet_mm.registry import HOOKS

from .optim_wrapper import AGCOptimWrapper

FILE = 'clipping.jsonl'  # in vis_data, beside scalars.json


@HOOKS.register_module()
class ClippingLogHook(Hook):
    """Write, every so many iterations, what AGC clipped of each parameter into ``vis_data/clipping.jsonl``.

    A line of it is a JSON object: names and numbers of units (``layers``, ``units``), whenever these change, or the
    iteration (``step``) with the clipped units and the smallest factor of each (``clipped``, ``scale``). ``python -m
    nfnet_mm clipping WORK_DIR`` draws it. The host waits for nothing: what is written comes when the device has told
    it. With another optimizer wrapper than AGC's there is nothing to write.

    Args:
        interval: iterations; of those that do not update the weights, the next update counts.

    Raises:
        UserError: ``interval`` is not a positive integer.
    """

    def __init__(self, interval: int = 100):
        self.interval = check_positive('ClippingLogHook interval', interval)
        self._header: tuple[list[str], list[int]] | None = None
        self._failed = False

    def before_train(self, runner: Runner) -> None:
        self._header = None

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        if runner.iter % self.interval:
            return
        wrapper = runner.optim_wrapper
        for one in wrapper.values() if isinstance(wrapper, OptimWrapperDict) else [wrapper]:
            if isinstance(one, AGCOptimWrapper):
                one.tell_layers(partial(self._write, Path(runner.log_dir), runner.iter + 1))

    def _write(
        self, log_dir: Path, step: int, names: list[str], units: list[int], clipped: list[int], scale: Sequence[float]
    ) -> None:
        if not is_main_process():
            return
        rows: list[dict[str, Any]] = []
        if self._header != (names, units):
            self._header = names, units
            rows.append(dict(layers=names, units=units))
        rows.append(dict(step=step, clipped=clipped, scale=[float(f'{factor:.4g}') for factor in scale]))
        try:
            path = log_dir / 'vis_data' / FILE
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open('a') as file:
                file.write(''.join(json.dumps(row) + '\n' for row in rows))
        except OSError as error:
            self._header = None  # that line may be missing
            if not self._failed:
                self._failed = True
                what = f'what AGC clips of each layer is NOT WRITTEN: {error}. Training goes on'
                print_log(what, 'current', logging.ERROR)
