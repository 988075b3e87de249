"""Let a resumed run go on bit for bit as if it had not been interrupted."""

import logging
from collections.abc import Callable, Iterator
from typing import Any

from mmengine.dist import all_gather_object, get_rank, get_world_size
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, Runner

from nfnet_mm.registry import HOOKS

from .seeded_items import random_states, seed_items, set_random_states, skip_batches


@HOOKS.register_module()
class ExactResumeHook(Hook):
    """Keep in checkpoints what mmengine's lack for a resumed run to be the same: randomness and the place in the data.

    The state of every process's random number generators is saved and restored, and validation does not touch it.
    Items are loaded from seeds of their own (:mod:`~.seeded_items`), so that the data workers have no state. The order
    of the data goes on to the batch, in the middle of an epoch too, without loading what was seen; mmengine, where no
    seed is configured, goes on in another order.

    A validation that was due after the step of the checkpoint, and which the run did not come to the end of, is done
    first. On another number of processes the run goes on from the same weights with other random numbers, and says so.
    """

    priority = 'LOWEST'  # after whatever saves a checkpoint in a validation

    def __init__(self) -> None:
        self.saved: dict[str, Any] | None = None  # what the next checkpoint holds
        self.restored: dict[str, Any] | None = None  # what the run goes on from, until it does
        self.aside: dict[str, Any] | None = None  # this process's, during validation
        self.seeded = False

    def gather(self, runner: Runner) -> None:
        """Collect what the next checkpoint holds, on all processes together."""
        states = all_gather_object(self.aside or random_states())
        batches = runner.train_dataloader.batch_sampler
        seed = getattr(getattr(batches, 'sampler', None), 'seed', None)
        self.saved = dict(random=states, sampler=seed, validated=self.aside is not None)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        if self.saved is not None:
            checkpoint['randomness'], self.saved = self.saved, None

    def after_load_checkpoint(self, runner: Runner, checkpoint: Any) -> None:
        if runner._resume and isinstance(checkpoint, dict):
            self.restored = checkpoint.get('randomness')
            if self.restored is None:
                what = 'the checkpoint holds no state of random numbers: the run goes on, but not bit for bit'
                print_log(what, 'current', logging.WARNING)

    def before_train(self, runner: Runner) -> None:
        loop, loader = runner.train_loop, runner.train_dataloader
        if self.restored and self.restored['sampler'] is not None and hasattr(loader.batch_sampler, 'sampler'):
            loader.batch_sampler.sampler.seed = self.restored['sampler']
        self.seeded = seed_items(loader)
        owed = self.restored is not None and not self.restored.get('validated', True) and _validation_is_due(runner)
        if self.restored and len(self.restored['random']) != get_world_size():
            ran = f'{len(self.restored["random"])} processes, now {get_world_size()}'
            print_log(f'random numbers begin anew, as the checkpoint is of {ran}', 'current', logging.WARNING)
            self.restored = None
        if not self.seeded and runner._resume:
            what = 'the data of this loader has no seeds or no places: the run goes on, but not bit for bit'
            print_log(what, 'current', logging.WARNING)
        elif self.seeded and isinstance(loop, EpochBasedTrainLoop):
            begun = loop._iter - loop._epoch * len(loader)
            if 0 < begun <= len(loader):  # all of it, if a checkpoint came before the epoch's end was told
                skip_batches(loader, begun)
        elif self.seeded and isinstance(loop, IterBasedTrainLoop):
            _skip_in(loop)
        if self.restored:
            set_random_states(self.restored['random'][get_rank()])
            self.restored = None
        if owed:
            runner.val_loop.run()

    def before_val(self, runner: Runner) -> None:
        if runner._train_loop is not None:
            self.aside = random_states()

    def after_val(self, runner: Runner) -> None:
        if self.aside is not None:
            set_random_states(self.aside)
            self.aside = None


def _validation_is_due(runner: Runner) -> bool:
    """Whether one comes after the step that a run has just done, as mmengine's loops say."""
    loop = runner.train_loop
    if runner.val_loop is None or not isinstance(loop, (EpochBasedTrainLoop, IterBasedTrainLoop)):
        return False
    loop._decide_current_val_interval()
    if isinstance(loop, IterBasedTrainLoop):
        done, last = loop._iter, loop._max_iters
    else:
        done, last = loop._epoch, loop._max_epochs
        if loop._iter != done * len(runner.train_dataloader):  # in the middle of one
            return False
    return done >= max(loop.val_begin, 1) and (done % loop.val_interval == 0 or done == last)


def _skip_in(loop: IterBasedTrainLoop) -> None:
    """Let a loop's stream of batches skip at once, whatever draws them; mmengine's loads them, but for plain ones."""
    stream: Any = loop.dataloader_iterator
    stream = getattr(stream, 'batches', stream)  # of the loop of total batches
    loader, sampler = loop.dataloader, loop.dataloader.batch_sampler.sampler

    def skip(count: int) -> None:
        if not hasattr(sampler, '_infinite_indices'):
            stream._epoch, count = divmod(count, len(loader))
            if hasattr(sampler, 'set_epoch'):
                sampler.set_epoch(stream._epoch)
        skip_batches(loader, count)
        stream._iterator = None

    if hasattr(stream, 'skip_iter'):
        stream.skip_iter = skip
    elif getattr(stream, '_iterator', None) is not None:  # before mmengine 0.10.8, where it began with the loop

        def begin() -> Iterator[Any]:
            if hasattr(sampler, '_indices_of_rank'):  # of mmengine's endless sampler, which ends with what drew from it
                sampler.indices, sampler.next_item = sampler._indices_of_rank(), 0
            skip(loop._iter * getattr(loop, 'accumulation', 1))
            stream._iterator = iter(loader)
            return stream

        loop.dataloader_iterator = _Later(begin, loop._iter)  # type: ignore[assignment]


class _Later:
    """A stream of batches that is made when the first is needed, for a loop that takes one for each iteration done.

    By then the loop's other hooks have told the sampler an epoch of theirs.
    """

    def __init__(self, begin: Callable[[], Iterator[Any]], done: int):
        self.begin, self.done = begin, done
        self.batches: Iterator[Any] | None = None

    def __next__(self) -> Any:
        if self.done:
            self.done -= 1
            return None
        if self.batches is None:
            self.batches = self.begin()
        return next(self.batches)
