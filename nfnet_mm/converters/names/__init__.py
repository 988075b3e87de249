"""Parameter names: those of DeepMind's and timm's weights to ours, and ours to timm's."""

from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor

from nfnet_mm.errors import some

from ..errors import ConversionError


def renamed(
    weights: Iterable[tuple[str, str | None, Any]], tensor: Callable[[str, str, Any], Tensor], unknown: str
) -> dict[str, Tensor]:
    """A state dict of weights that come as (name in the source, our name or None where there is none, value).

    Args:
        weights: as above.
        tensor: makes the tensor of one of them.
        unknown: begins the message about those that have no name of ours.
    """
    state: dict[str, Tensor] = {}
    sources: dict[str, str] = {}
    without = []
    for source, key, value in weights:
        if key is None:
            without.append(source)
        elif key in state:
            raise ConversionError(f'{source} and {sources[key]} are both {key}')
        else:
            sources[key], state[key] = source, tensor(source, key, value)
    if without:
        raise ConversionError(f'{unknown}: {some(without)}')
    return state
