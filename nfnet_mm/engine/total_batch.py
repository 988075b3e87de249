"""Train with a recipe's batch size on whatever number of devices there is."""
from mmengine.dist import get_world_size
from mmengine.runner import IterBasedTrainLoop

from ..registry import LOOPS

__all__ = ['TotalBatchTrainLoop', 'plan_accumulation']


def plan_accumulation(total_batch, per_device, world_size):
    """How many batches each device must accumulate per update for ``total_batch`` samples in all.

    Raises:
        ValueError: it is not a whole number; the message names what would work.

    >>> plan_accumulation(256, per_device=2, world_size=8)
    16
    """
    if min(total_batch, per_device, world_size) < 1:
        raise ValueError(f'total_batch, per-device batch and devices must be at least 1, '
                         f'got {total_batch}, {per_device} and {world_size}')
    at_once = per_device * world_size
    if total_batch % at_once == 0:
        return total_batch // at_once
    fits = [size for size in range(1, total_batch // world_size + 1) if total_batch % (size * world_size) == 0]
    lower = total_batch // at_once * at_once
    totals = ' or '.join(str(total) for total in (lower, lower + at_once) if total)
    raise ValueError(
        f'a total batch of {total_batch} is not a multiple of {per_device} samples x {world_size} devices = {at_once}: '
        + (f'set train_dataloader.batch_size to one of {fits}, or ' if fits else 'set ')
        + f'train_cfg.total_batch to {totals} (the learning rate follows it)')


@LOOPS.register_module()
class TotalBatchTrainLoop(IterBasedTrainLoop):
    """An iteration-based loop whose iteration is one update on ``total_batch`` samples.

    mmengine counts micro-steps: with its ``accumulative_counts`` a recipe's number of steps, warm-up, milestones and
    intervals change with the number of devices. Here they never do: each iteration accumulates as many batches as it
    takes, so ``max_iters``, schedulers (``by_epoch=False``) and the intervals of validation, checkpoints and log all
    count updates. Logged losses are means over the whole batch.

    Args:
        total_batch (int): Samples per update, over all devices.
        lr_batch (int, optional): The total batch that the configured learning rate is meant for; the rate is scaled
            linearly if ``total_batch`` differs. None leaves it as it is.
        **kwargs: Those of :class:`mmengine.runner.IterBasedTrainLoop`.

    Raises:
        ValueError: ``total_batch`` is no multiple of the samples that the devices take at once, or the config sets
            accumulation or automatic learning-rate scaling itself, which would be applied twice.
    """

    def __init__(self, runner, dataloader, total_batch, lr_batch=None, **kwargs):
        super().__init__(runner, dataloader, **kwargs)
        per_device = self.dataloader.batch_size
        if per_device is None:  # a batch sampler of the config's own
            per_device = self.dataloader.batch_sampler.batch_size
        self.accumulation = plan_accumulation(total_batch, per_device, get_world_size())
        # The loop is built before the wrapper, whose config can therefore still be completed.
        wrapper = runner.optim_wrapper
        if not isinstance(wrapper, dict):
            raise ValueError(f'{type(self).__name__} needs the optimizer wrapper as a config, got {type(wrapper)}')
        if wrapper.get('accumulative_counts', 1) != 1:
            raise ValueError(f'optim_wrapper.accumulative_counts is {wrapper["accumulative_counts"]}, but '
                             f'{type(self).__name__} derives it from total_batch: remove it')
        if (runner.auto_scale_lr or {}).get('enable'):
            raise ValueError(f'auto_scale_lr is on, but {type(self).__name__} scales the learning rate by lr_batch: '
                             'turn it off')
        wrapper['accumulative_counts'] = self.accumulation
        if lr_batch:
            wrapper['optimizer']['lr'] *= total_batch / lr_batch
        runner.logger.info(
            f'batch {total_batch} = {per_device} samples x {get_world_size()} devices x {self.accumulation} '
            f'accumulated; learning rate {wrapper["optimizer"].get("lr")}')

    def run(self):
        """Train; mmengine's loop, with what it counts in batches put right."""
        self.runner.optim_wrapper.initialize_count_status(
            self.runner.model, self._iter * self.accumulation, self._max_iters * self.accumulation)
        batches = self.dataloader_iterator
        if hasattr(batches, 'skip_iter'):  # takes an absolute position
            skip = batches.skip_iter
            batches.skip_iter = lambda updates: skip(updates * self.accumulation)
        else:  # mmengine < 0.10.8 takes one batch per iteration done
            for _ in range(self._iter * (self.accumulation - 1)):
                next(batches)
        return super().run()

    def run_iter(self, data_batch):
        """One update: ``data_batch`` and the batches after it that complete the total."""
        self.runner.call_hook('before_train_iter', batch_idx=self._iter, data_batch=data_batch)
        mean = {}
        for part in range(self.accumulation):
            if part:
                data_batch = next(self.dataloader_iterator)
            outputs = self.runner.model.train_step(data_batch, optim_wrapper=self.runner.optim_wrapper)
            for key, value in outputs.items():
                mean[key] = mean.get(key, 0) + value / self.accumulation
        self.runner.call_hook('after_train_iter', batch_idx=self._iter, data_batch=data_batch, outputs=mean)
        self._iter += 1
