"""Let what is random in loading an item depend on its place in the training alone.

Otherwise it depends on what a data worker loaded before, so that a resumed run, or one with another number of workers,
sees other augmentations. Here each item is loaded from a seed of its own: of the run's seed, the process, the epoch and
the item's place in it.
"""

import functools
import hashlib
import random
from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
import torch
from mmengine.dist import get_rank
from torch.utils.data import DataLoader, IterableDataset, get_worker_info


class _Item(int):
    """An index of a dataset, and the seed to load it from."""

    seed: int


def random_states() -> dict[str, Any]:
    """The state of every random number generator that this process uses globally."""
    states: dict[str, Any] = dict(python=random.getstate(), numpy=np.random.get_state(), torch=torch.get_rng_state())
    if torch.cuda.is_initialized():
        states['cuda'] = torch.cuda.get_rng_state()
    return states


def set_random_states(states: dict[str, Any]) -> None:
    """Put them back."""
    random.setstate(states['python'])
    np.random.set_state(states['numpy'])
    torch.set_rng_state(states['torch'].cpu())
    if 'cuda' in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states['cuda'].cpu())


# What the class of a loader's object is made to do besides; ``kind`` is its own class.


def _seeded_dataset(kind: Any) -> dict[str, Any]:
    def __getitem__(self: Any, index: Any) -> Any:
        if not isinstance(index, _Item):
            return kind.__getitem__(self, index)
        before = random_states() if get_worker_info() is None else None
        random.seed(index.seed)
        np.random.seed(index.seed % 2**32)
        torch.default_generator.manual_seed(index.seed)
        item = kind.__getitem__(self, int(index))
        if before is not None:  # the process that trains draws numbers of its own
            set_random_states(before)
        return item

    return dict(__getitem__=__getitem__)


def _seeding_sampler(kind: Any) -> dict[str, Any]:
    def __iter__(self: Any) -> Iterator[_Item]:
        # mmengine's endless sampler, and those derived from it, go on where they were
        begin = self.next_item if hasattr(self, '_infinite_indices') else 0
        place = f'{self.seed}/{get_rank()}/{getattr(self, "epoch", 0)}'
        for number, index in enumerate(kind.__iter__(self), begin):
            item = _Item(index)
            item.seed = int.from_bytes(hashlib.blake2b(f'{place}/{number}'.encode(), digest_size=7).digest(), 'big')
            self.next_item = number + 1
            yield item

    return dict(__iter__=__iter__, next_item=0)


def _skipping_batches(kind: Any) -> dict[str, Any]:
    def __iter__(self: Any) -> Iterator[Any]:
        # when the first is drawn: a loader with workers makes two iterators, and draws from one
        count, self.batches_to_skip = self.batches_to_skip, 0
        yield from islice(kind.__iter__(self), count, None)

    return dict(__iter__=__iter__, batches_to_skip=0)


@functools.cache
def _derived(methods: Any, kind: Any) -> Any:
    def __reduce_ex__(self: Any, protocol: Any) -> tuple:  # the class is in no module
        return _remake, (methods, kind, self.__dict__)

    own = dict(__module__=kind.__module__, __doc__=kind.__doc__, __reduce_ex__=__reduce_ex__, derived=methods)
    return type(kind.__name__, (kind,), {**own, **methods(kind)})


def _remake(methods: Any, kind: Any, state: dict[str, Any]) -> Any:
    one = kind.__new__(kind)
    one.__dict__.update(state)
    one.__class__ = _derived(methods, kind)
    return one


def seed_items(loader: DataLoader) -> bool:
    """Give the items of a data loader seeds of their own; its objects stay of the types that they are.

    Returns: whether that could be done: a stream without indices has no places, and a sampler of another library's no
    seed.
    """
    batches = loader.batch_sampler
    sampler = getattr(batches, 'sampler', None)
    if isinstance(loader.dataset, IterableDataset) or not hasattr(sampler, 'seed'):
        return False
    parts: dict[Any, Any] = {_seeded_dataset: loader.dataset, _seeding_sampler: sampler, _skipping_batches: batches}
    for methods, one in parts.items():
        if getattr(type(one), 'derived', None) is not methods:
            one.__class__ = _derived(methods, type(one))  # type: ignore[arg-type]
    return True


def skip_batches(loader: DataLoader, count: int) -> None:
    """Leave out the first batches of the next pass through a loader of :func:`seed_items`, loading nothing."""
    loader.batch_sampler.batches_to_skip = count  # type: ignore[union-attr]
