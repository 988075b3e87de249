"""An allow-list for ``torch.load`` of a PyTorch whose own reader has none (before 2.5)."""

import os
import pickle
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

HAS_ALLOW_LIST = hasattr(torch.serialization, 'safe_globals')
FORCE = 'TORCH_FORCE_WEIGHTS_ONLY_LOAD'  # of torch.load, wherever it is called


class Restricted:
    """What that ``torch.load`` takes as its ``pickle_module``: one that finds nothing but what is allowed.

    Args:
        allowed: beside what tensors are made of, by the names that pickles call it.
    """

    def __init__(self, allowed: Mapping[str, Any]):
        found = {**torch._weights_only_unpickler._get_allowed_globals(), **allowed, '_codecs.encode': _encode}

        class Unpickler(pickle.Unpickler):
            def find_class(self, module: str, name: str) -> Any:
                path = f'{module}.{name}'.replace('__builtin__.', 'builtins.')
                if path not in found:
                    raise pickle.UnpicklingError(f'GLOBAL {path}')
                return found[path]

        self.Unpickler, self.__name__ = Unpickler, __name__  # torch.load asks a module for both

    def load(self, file: Any, **kwargs: Any) -> Any:
        """As ``pickle.load``."""
        return self.Unpickler(file, **kwargs).load()


def _encode(text: str, encoding: str) -> bytes:
    return text.encode(encoding)


@contextmanager
def forced_safe_loading_lifted() -> Iterator[None]:
    """For a ``torch.load`` with a pickle module of our own, which is safe and which the setting contradicts."""
    forced = os.environ.pop(FORCE, None)
    try:
        yield
    finally:
        os.environ.update({FORCE: forced} if forced else {})
