"""Stochastic depth as the authors' code has it: a linear schedule, and no rescaling of the kept branches."""

import numbers
from collections.abc import Sequence

import torch
from torch import Tensor


def drop_path_rates(rate: float, depths: Sequence[int]) -> list[list[float]]:
    """The drop rate of every block, stage by stage: ``rate * index / num_blocks`` (0 first, never ``rate`` itself).

    Example:
        >>> drop_path_rates(0.4, (1, 3))
        [[0.0], [0.1, 0.2, 0.30000000000000004]]

    Raises:
        ValueError: ``rate`` is not a number in [0, 1).
    """
    if not isinstance(rate, numbers.Real) or not 0 <= rate < 1:
        raise ValueError(f'drop_path_rate={rate!r} must lie in [0, 1)')
    total, index, rates = sum(depths), 0, []
    for depth in depths:
        rates.append([rate * (index + i) / total for i in range(depth)])
        index += depth
    return rates


def drop_path_mask(x: Tensor, rate: float, training: bool) -> Tensor | None:
    """(N, 1, 1, 1) of zeros and ones for a batch (N, C, H, W), each sample dropped with probability ``rate``.

    None where nothing can be dropped. A mask is a few numbers: it goes into the branch's gate, never over the
    activations.
    """
    if not training or rate == 0:
        return None
    return (torch.rand(x.shape[0], 1, 1, 1, device=x.device) >= rate).to(x.dtype)
