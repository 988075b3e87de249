"""Stochastic depth without rescaling of the kept branches (NF-ResNets, Appendix B.2)."""

import torch
from torch import Tensor


def drop_path_mask(x: Tensor, rate: float, training: bool) -> Tensor | None:
    """(N, 1, 1, 1) of booleans for a batch (N, C, H, W), false for the samples that drop, with probability ``rate``.

    None where nothing can be dropped. A mask is a few numbers: it goes into the branch's gate, never over the
    activations.
    """
    if not training or rate == 0:
        return None
    return torch.rand(x.shape[0], 1, 1, 1, device=x.device) >= rate
