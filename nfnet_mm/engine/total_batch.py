"""Train with a recipe's batch size on whatever number of devices there is."""

import copy
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from numbers import Number
from typing import Any

import numpy as np
from mmengine.dist import get_world_size
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper
from mmengine.runner import BaseLoop, IterBasedTrainLoop, Runner
from torch import Tensor, nn
from torch.utils.data import DataLoader

from nfnet_mm.errors import UserError, check_number, check_positive
from nfnet_mm.registry import LOOPS

from .epochs import in_updates, updates_of
from .rank_seed import RankSeedHook
from .resume import ResumeHook


def plan_accumulation(total_batch: int, per_device: int, world_size: int, images: int = 1) -> int:
    """How many batches each device must accumulate per update for ``total_batch`` samples in all.

    Args:
        total_batch, per_device, world_size: samples per update, samples of a device's batch, and devices.
        images: loaded for each sample, for the message.

    Raises:
        UserError: it is not a whole number; the message names what would work.

    >>> plan_accumulation(256, per_device=2, world_size=8)
    16
    """
    if min(total_batch, per_device, world_size) < 1:
        given = f'{total_batch}, {per_device} and {world_size}'
        raise UserError(f'total_batch, per-device batch and devices must be at least 1, got {given}')
    at_once = per_device * world_size
    if total_batch % at_once == 0:
        return total_batch // at_once
    fits = [size * images for size in range(1, total_batch // world_size + 1) if total_batch % (size * world_size) == 0]
    lower = total_batch // at_once * at_once
    totals = ' or '.join(str(total) for total in (lower, lower + at_once) if total)
    raise UserError(
        f'a total batch of {total_batch} is not a multiple of {per_device} samples x {world_size} devices = {at_once}: '
        + (f'set train_dataloader.batch_size to one of {fits}, or ' if fits else 'set ')
        + f'train_cfg.total_batch to {totals} (the learning rate follows it)'
    )


def images_per_sample(collate: Callable | None) -> int:
    """How many loaded images a collate function makes one sample of.

    A function that mixes images tells it by an attribute ``images_per_output``, called with the function's own
    arguments. Others make a sample of each image.
    """
    given = collate.keywords if isinstance(collate, partial) else {}
    told = getattr(collate.func if isinstance(collate, partial) else collate, 'images_per_output', None)
    return told(**given) if told else 1


def set_accumulation(wrapper: OptimWrapper, counts: int) -> None:
    """Let an optimizer wrapper that is already built accumulate ``counts`` batches per update.

    mmengine has no method for it: this relies on ``OptimWrapper`` and its subclasses reading the number, whenever they
    scale a loss, synchronise or update, from their attribute ``_accumulative_counts``.

    Raises:
        RuntimeError: the wrapper does not keep the number there, so that it would not accumulate.
    """
    if not hasattr(wrapper, '_accumulative_counts'):
        raise RuntimeError(
            f'TotalBatchTrainLoop cannot make {type(wrapper).__name__} accumulate: it has no '
            '_accumulative_counts. Use one OptimWrapper, AmpOptimWrapper or a subclass of theirs'
        )
    wrapper._accumulative_counts = counts


class _CountUpdates(Hook):
    """No accumulation until the loop runs.

    Before it, mmengine tells the wrapper how many updates, not how many batches, a resumed run has done, and would warn
    of lost gradients.
    """

    def before_run(self, runner: Runner) -> None:
        if not isinstance(runner.optim_wrapper, dict):
            set_accumulation(runner.optim_wrapper, 1)


class _Batches:
    """A loop's stream of batches, in which mmengine skips what a resumed run has taken: so many for each update.

    mmengine's loop calls ``skip_iter`` of its ``dataloader_iterator`` with the updates done; before 0.10.8 it takes one
    batch for each of them instead, and the others are skipped with it.
    """

    def __init__(self, batches: Any, accumulation: int, done: int):
        self.batches, self.accumulation = batches, accumulation
        self.behind = 0 if hasattr(batches, 'skip_iter') else done

    def __next__(self) -> Any:
        if self.behind:
            self.behind -= 1
            for _ in range(self.accumulation - 1):
                next(self.batches)
        return next(self.batches)

    def skip_iter(self, updates: int) -> None:
        self.batches.skip_iter(updates * self.accumulation)  # an absolute position


def _refuse_absolute_rates(schedulers: Mapping | Sequence[Mapping] | None, total_batch: int, lr_batch: int) -> None:
    """Some schedulers state learning rates themselves, which do not follow the optimizer's."""
    for i, cfg in enumerate([schedulers] if isinstance(schedulers, Mapping) else schedulers or ()):
        for key in ('eta_min', 'eta_max', 'min_value'):
            if isinstance(cfg, dict) and 'Momentum' not in str(cfg.get('type')) and cfg.get(key):
                raise UserError(
                    f'train_cfg.lr_batch={lr_batch} scales the learning rate to total_batch={total_batch}, but '
                    f'param_scheduler.{i}.{key}={cfg[key]!r} is a rate of its own: state both for this total batch and '
                    'set lr_batch to None (or give eta_min_ratio instead of eta_min)'
                )


def _length(dataset: Any) -> int | None:
    """Images of a data set; None where it does not tell."""
    try:
        return len(dataset)
    except TypeError:  # an endless one need not have a length
        return None


def detached(value: Any) -> Any:
    """Logged values, however nested, without the graphs behind them."""
    if isinstance(value, Tensor):
        return value.detach()
    if isinstance(value, dict):
        return {key: detached(part) for key, part in value.items()}
    return [detached(part) for part in value] if isinstance(value, (list, tuple)) else value


@LOOPS.register_module()
class TotalBatchTrainLoop(IterBasedTrainLoop):
    """An iteration-based loop whose iteration is one update on ``total_batch`` samples.

    mmengine counts micro-steps: with its ``accumulative_counts`` a recipe's number of steps, warm-up, milestones and
    intervals change with the number of devices. Here they never do: each iteration accumulates as many batches as it
    takes, so ``max_iters``, schedulers and the intervals of validation, checkpoints and log all count updates. Logged
    numbers are means over the batches that have them; of other values, the last batch's are kept.

    Told in epochs, a training is as long with another total batch or data set. An epoch is as many samples as the data
    set has images; where two images are mixed into one sample each is loaded twice in it, as in the authors' code.
    ``max_epochs`` stands in place of ``max_iters``; then ``val_interval`` and ``val_begin`` count epochs too, and the
    log says how many are done. Schedulers with ``by_epoch=True``, which is mmengine's default, are converted to
    updates in any case (see :func:`nfnet_mm.engine.epochs.in_updates`). Hooks are not: theirs count updates.

    A checkpoint is resumed with the total batch and the learning rates that it was trained with: its optimizer state
    would silently win over another rate of the config. ``load_from`` takes the weights alone and is free.

    Args:
        runner, dataloader: as in mmengine.
        total_batch: samples per update, over all devices, after images were mixed.
        lr_batch: the total batch that the configured learning rate is meant for; the rate is scaled linearly if
            ``total_batch`` differs. None leaves it as it is.
        max_iters: updates of the training.
        max_epochs: epochs of the training, of which a last fraction of an update is left out.
        images: samples of an epoch; by default, the length of the data set.
        val_begin, val_interval, dynamic_intervals: as in mmengine, in updates, or, with ``max_epochs``, in epochs, of
            at least one update.
        **kwargs: those of :class:`mmengine.runner.IterBasedTrainLoop`.

    Raises:
        UserError: ``total_batch`` is no multiple of the samples that the devices take at once, or the batch size none
            of the images that are mixed into one; the sampler ends a pass with a smaller batch, which would count as a
            whole one; not one of ``max_iters`` and ``max_epochs`` is given, or the length of an epoch is not known;
            ``lr_batch`` finds no learning rate to scale; a scheduler's epochs cannot be converted; the config sets
            accumulation or automatic learning-rate scaling itself, which would be applied twice; or a checkpoint is
            resumed with another total batch, learning rate or schedule.
    """

    dataloader_iterator: Any

    def __init__(
        self,
        runner: Runner,
        dataloader: DataLoader | dict,
        total_batch: int,
        lr_batch: int | None = None,
        max_iters: int | None = None,
        max_epochs: float | None = None,
        images: int | None = None,
        val_begin: float = 1,
        val_interval: float | None = None,
        dynamic_intervals: Sequence[tuple[float, float]] | None = None,
        **kwargs: Any,
    ):
        self.total_batch = check_positive('train_cfg.total_batch', total_batch)
        if lr_batch is not None:
            check_positive('train_cfg.lr_batch', lr_batch)
        if images is not None:
            check_positive('train_cfg.images', images)
        if (max_iters is None) == (max_epochs is None):
            given = f'max_iters={max_iters!r} and max_epochs={max_epochs!r}'
            raise UserError(f'train_cfg needs one of max_iters and max_epochs, got {given}: set the other to None')
        if not isinstance(runner, Runner):
            raise UserError(f"{type(self).__name__} works under mmengine's Runner, not under {type(runner).__name__}")
        BaseLoop.__init__(self, runner, dataloader)  # the length of the data set is needed first
        known = _length(self.dataloader.dataset)
        self.images = images or known
        self.counts_epochs = max_epochs is not None
        if self.counts_epochs and known not in (None, self.images):
            what = f'an epoch is {self.images} samples by train_cfg.images, and the data set has {known} images'
            runner.logger.warning(f'{what}: train_cfg.images=None makes an epoch of these')
        if max_epochs is not None:
            max_iters = self._updates('max_epochs', max_epochs)
            val_begin = self._updates('val_begin', val_begin, 1)
            val_interval = self._updates('val_interval', 1 if val_interval is None else val_interval, 1)
            dynamic_intervals = dynamic_intervals and [
                (self._updates('dynamic_intervals', begin, 1), self._updates('dynamic_intervals', interval, 1))
                for begin, interval in dynamic_intervals
            ]
            if not max_iters:
                given = f'max_epochs={max_epochs!r} of {self.images} samples'
                raise UserError(f'train_cfg.{given} are less than one update on total_batch={total_batch}')
        super().__init__(
            runner,
            self.dataloader,
            max_iters=max_iters,
            val_begin=val_begin,
            val_interval=1000 if val_interval is None else val_interval,
            dynamic_intervals=dynamic_intervals,
            **kwargs,
        )
        loaded = self.dataloader.batch_size
        if loaded is None:  # a batch sampler of the config's own
            loaded = getattr(self.dataloader.batch_sampler, 'batch_size', None)
        if not isinstance(loaded, int):
            lack = f'the batch sampler ({type(self.dataloader.batch_sampler).__name__}) has no batch_size'
            raise UserError(f'{type(self).__name__} needs batches of one size, and {lack}')
        self._refuse_short_batches(loaded)
        each = images_per_sample(self.dataloader.collate_fn)
        if loaded % each:
            raise UserError(
                f'train_dataloader.batch_size={loaded} must be a multiple of {each}, so many images being mixed'
            )
        self.accumulation = plan_accumulation(total_batch, loaded // each, get_world_size(), each)
        rate = self._complete_wrapper(runner, lr_batch)
        self._convert_schedules(runner)
        runner.register_hook(_CountUpdates())
        for kind in (ResumeHook, RankSeedHook):  # for whoever starts a run without this package's commands
            if not any(isinstance(hook, kind) for hook in runner.hooks):
                runner.register_hook(kind())
        mixed = f' (mixed from {loaded} images)' if each > 1 else ''
        length = f'; {max_epochs} epochs of {self.images} samples = {max_iters} updates' if self.counts_epochs else ''
        runner.logger.info(
            f'batch {total_batch} = {loaded // each} samples{mixed} x {get_world_size()} devices x '
            f'{self.accumulation} accumulated; learning rate {rate}{length}'
        )

    def _updates(self, name: str, epochs: float, least: int = 0) -> int:
        check_number(f'train_cfg.{name}', epochs, '[0, inf)', ', in epochs')
        if self.images is None:
            raise UserError('train_cfg.max_epochs needs train_cfg.images, since the data set has no length')
        return max(updates_of(epochs, self.images, self.total_batch), least)

    def _convert_schedules(self, runner: Runner) -> None:
        """Put the runner's schedulers, which are built after its loop, from epochs to updates.

        The caller's configs stay as they were; ``schedules`` are those of one optimizer as they are now.
        """
        cfgs = runner.param_schedulers
        cfgs = [cfgs] if isinstance(cfgs, Mapping) and 'type' in cfgs else cfgs
        if isinstance(cfgs, Sequence) and all(isinstance(cfg, Mapping) for cfg in cfgs):
            self.schedules = runner.param_schedulers = [
                in_updates(cfg, f'param_scheduler.{i}', self.total_batch, self.images, self._max_iters)
                for i, cfg in enumerate(cfgs)
            ]

    def _complete_wrapper(self, runner: Runner, lr_batch: int | None) -> float | None:
        """Complete the config of the runner's optimizer wrapper; returns its learning rate.

        This relies on the runner building its loop before its wrapper, from what ``runner.optim_wrapper`` is by then,
        and its schedulers last: once built, these keep rates of their own. The caller's config stays as it was.
        """
        loop = type(self).__name__
        if not isinstance(runner.optim_wrapper, dict):
            raise UserError(f'{loop} needs the optimizer wrapper as a config, got {type(runner.optim_wrapper)}')
        wrapper = runner.optim_wrapper = copy.deepcopy(runner.optim_wrapper)
        if (counts := wrapper.get('accumulative_counts', 1)) != 1:
            why = f'but {loop} derives it from total_batch: remove it'
            raise UserError(f'optim_wrapper.accumulative_counts is {counts}, {why}')
        if (runner.auto_scale_lr or {}).get('enable'):
            raise UserError(f'auto_scale_lr is on, but {loop} scales the learning rate by lr_batch: turn it off')
        wrapper['accumulative_counts'] = self.accumulation
        optimizer = wrapper.get('optimizer') or {}
        if lr_batch is not None:
            rate = optimizer.get('lr')
            if not isinstance(rate, (int, float)) or isinstance(rate, bool):
                what = f'train_cfg.lr_batch={lr_batch} scales optim_wrapper.optimizer.lr, which is {rate!r}'
                raise UserError(f'{what}: set it to a number, or lr_batch to None')
            optimizer['lr'] = rate * (self.total_batch / lr_batch)
            if self.total_batch != lr_batch:
                _refuse_absolute_rates(runner.param_schedulers, self.total_batch, lr_batch)
        return optimizer.get('lr')

    def _refuse_short_batches(self, batch_size: int) -> None:
        """Each batch counts the same, so none may be smaller than the others."""
        batches = self.dataloader.batch_sampler
        sampler: Any = getattr(batches, 'sampler', None)
        # so mmengine's endless sampler and those derived from it call the stream that they draw from
        if getattr(batches, 'drop_last', True) or hasattr(sampler, '_infinite_indices'):
            return
        samples = _length(sampler)
        if samples and samples % batch_size:
            raise UserError(
                f'{type(sampler).__name__} gives each process {samples} samples a pass, in batches of {batch_size} and '
                f'a last one of {samples % batch_size} that would count as much as a whole one: set train_dataloader.'
                "sampler=dict(type='InfiniteSampler', shuffle=True), or train_dataloader.drop_last=True"
            )

    def run(self) -> nn.Module:
        """Train; mmengine's loop, with what it counts in batches put right."""
        wrapper, each = self.runner.optim_wrapper, self.accumulation
        set_accumulation(wrapper, each)
        wrapper.initialize_count_status(self.runner.model, self._iter * each, self._max_iters * each)
        self.dataloader_iterator = _Batches(self.dataloader_iterator, each, self._iter)
        return super().run()

    def run_iter(self, data_batch: Any) -> None:
        """One update: ``data_batch`` and the batches after it that complete the total."""
        self.runner.call_hook('before_train_iter', batch_idx=self._iter, data_batch=data_batch)
        mean: dict[str, Any] = {}
        counts: Counter[str] = Counter()
        for part in range(self.accumulation):
            if part:
                data_batch = next(self.dataloader_iterator)
            outputs = detached(self.runner.model.train_step(data_batch, optim_wrapper=self.runner.optim_wrapper))
            for key, value in outputs.items():
                if isinstance(value, (Tensor, np.ndarray, Number)):
                    counts[key] += 1  # batches that have it
                    value = value if counts[key] == 1 else mean[key] + (value - mean[key]) / counts[key]
                mean[key] = value
        if self.counts_epochs:
            done = (self._iter + 1) * self.total_batch / self.images
            self.runner.message_hub.update_scalar('train/epoch', done)
        self.runner.call_hook('after_train_iter', batch_idx=self._iter, data_batch=data_batch, outputs=mean)
        self._iter += 1
