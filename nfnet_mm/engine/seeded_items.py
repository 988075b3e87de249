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


class _Number(int):
    """An index of a dataset, and its place in the training."""

    place: str


class _Pair(tuple):
    """The same for samplers of videos, whose indices are (video, frame)."""

    place: str


_PLACED = (_Number, _Pair)


def plain_index(index: Any) -> Any:
    """An index of a data set without its place; of each of a list."""
    if type(index) is list:
        return [plain_index(one) for one in index]
    return int(index) if isinstance(index, _Number) else tuple(index) if isinstance(index, _Pair) else index


def _placed(index: Any, place: str) -> Any:
    if type(index) is tuple:
        index = _Pair(index)
    elif hasattr(index, '__index__'):
        index = _Number(index)
    else:  # a key of some other kind has no seed of its own
        return index
    index.place = place
    return index


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


def seed_generators(place: str, on_devices: bool = False) -> None:
    """Seed the generators that a process uses globally by the hash of a text; those of accelerators too, if asked."""
    seed = int.from_bytes(hashlib.blake2b(place.encode(), digest_size=7).digest(), 'big')
    random.seed(seed)
    np.random.seed(seed % 2**32)
    (torch.manual_seed if on_devices else torch.default_generator.manual_seed)(seed)


# What the class of a loader's object is made to do besides; ``kind`` is its own class.


def _seeded_dataset(kind: Any) -> dict[str, Any]:
    def load(method: Any, self: Any, place: str, index: Any) -> Any:
        before = random_states() if get_worker_info() is None else None
        # here, in the data worker, and not where the indices are drawn, which a resumed run draws anew
        seed_generators(place)
        item = method(self, index)
        if before is not None:  # the process that trains draws numbers of its own
            set_random_states(before)
        return item

    def __getitem__(self: Any, index: Any) -> Any:
        if not isinstance(index, _PLACED):
            return kind.__getitem__(self, index)
        return load(kind.__getitem__, self, index.place, plain_index(index))

    def __getitems__(self: Any, indices: Any) -> Any:  # a batch at once
        places = [index.place for index in indices if isinstance(index, _PLACED)]
        plain = [plain_index(index) for index in indices]
        return load(kind.__getitems__, self, places[0], plain) if places else kind.__getitems__(self, plain)

    at_once = dict(__getitems__=__getitems__) if getattr(kind, '__getitems__', None) else {}
    return dict(__getitem__=__getitem__, **at_once)


def _seeding_sampler(kind: Any) -> dict[str, Any]:
    def __iter__(self: Any) -> Iterator[Any]:
        # mmengine's endless sampler, and those derived from it, go on where they were
        begin = self.next_item if hasattr(self, '_infinite_indices') else 0
        place = f'{self.seed}/{get_rank()}/{getattr(self, "epoch", 0)}'
        for number, index in enumerate(kind.__iter__(self), begin):
            self.next_item = number + 1
            yield _placed(index, f'{place}/{number}')

    return dict(__iter__=__iter__, next_item=0)


def _skipping_batches(kind: Any) -> dict[str, Any]:
    def __iter__(self: Any) -> Iterator[Any]:
        # when the first is drawn: a loader with workers makes two iterators, and draws from one
        count, self.batches_to_skip = self.batches_to_skip, 0
        yield from islice(kind.__iter__(self), count, None)

    return dict(__iter__=__iter__, batches_to_skip=0)


@functools.cache
def derived(methods: Any, kind: Any) -> Any:
    """A class like ``kind``, with methods that ``methods(kind)`` makes; its objects are pickled as theirs."""

    def __reduce_ex__(self: Any, protocol: Any) -> Any:  # the class is in no module
        how = kind.__reduce_ex__(self, protocol)
        if isinstance(how, str):
            return how
        make, args, *rest = how
        return _remake, (methods, make, tuple(kind if one is type(self) else one for one in args)), *rest

    own = dict(__module__=kind.__module__, __doc__=kind.__doc__, __reduce_ex__=__reduce_ex__, derived=methods)
    return type(kind.__name__, (kind,), {**own, **methods(kind)})


def _remake(methods: Any, make: Any, args: tuple) -> Any:
    one = make(*args)
    one.__class__ = derived(methods, type(one))  # type: ignore[arg-type]
    return one


def seed_items(loader: DataLoader) -> bool:
    """Give the items of a data loader seeds of their own; its objects stay of the types that they are.

    Returns: whether that could be done: a stream without indices has no places, a sampler of another library's no seed,
    and an object of a built-in type, or with ``__slots__``, takes no methods.
    """
    batches = loader.batch_sampler
    sampler = getattr(batches, 'sampler', None)
    if isinstance(loader.dataset, IterableDataset) or not hasattr(sampler, 'seed'):
        return False
    parts: dict[Any, Any] = {_seeded_dataset: loader.dataset, _seeding_sampler: sampler, _skipping_batches: batches}
    try:
        for methods, one in parts.items():
            if getattr(type(one), 'derived', None) is not methods:
                one.__class__ = derived(methods, type(one))  # type: ignore[arg-type]
    except TypeError:
        return False
    if loader.generator is None:  # or each pass would draw a number of the process that trains
        loader.generator = torch.Generator()
    return True


def skip_batches(loader: DataLoader, count: int) -> None:
    """Leave out the first batches of the next pass through a loader of :func:`seed_items`, loading nothing."""
    loader.batch_sampler.batches_to_skip = count  # type: ignore[union-attr]
