"""Clipping on a CPU by one compiled kernel: gradients and weights are read once, and a unit is scaled in the cache."""

import torch
from torch import Tensor

from nfnet_mm import cpu_kernels

from .places import layout_of
from .units import Grads, tell_autograd


def clip_by_cpu_kernel_(job: Grads, clipping: float, eps: float) -> tuple[Tensor, list[int]] | None:
    """Clip in place.

    Returns:
        the factor of every unit (1: not clipped; infinite: of non-finite norm, left as it is), and the number of units
        of each gradient; None: there is no kernel here, or the tensors are not as it takes them, and nothing was done.
    """
    if not cpu_kernels.takes(*job.grads, *job.weights):
        return None
    layout = layout_of(job)
    if layout is None:
        return None
    weights = [weight.data_ptr() for weight in job.weights]
    weights += [0] * (len(job.grads) - len(weights))
    pointers = torch.tensor([[grad.data_ptr() for grad in job.grads], weights], dtype=torch.int64, device='cpu')
    factors = torch.empty(layout.units, dtype=torch.float32, device='cpu')
    marks = torch.zeros(len(job.grads), dtype=torch.uint8, device='cpu')
    cpu_kernels.clip(pointers, layout.table, layout.owner, clipping, eps, factors, marks)
    for grad, clipped in zip(job.grads, marks.tolist()):
        if clipped:
            tell_autograd(grad)
    return factors, layout.sizes
