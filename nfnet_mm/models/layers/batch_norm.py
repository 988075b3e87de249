"""BatchNorm as in the papers' baselines (Haiku's), and recomputing activations with it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from nfnet_mm.errors import UserError

_HIDDEN = ('hidden_mean', 'hidden_var')


class BatchNorm2d(nn.BatchNorm2d):
    """``nn.BatchNorm2d`` with the running averages of Haiku's: debiased, and of the biased variance.

    After n batches the average of decay d is that of all of them, sum of d^(n-i) s_i over sum of d^(n-i), so that the
    initial 0 and 1 have no part in it: batch n + 1 moves it by (1 - d) / (1 - d^(n+1)) towards its own statistic. That
    of torch is (1 - d), and of the unbiased variance; ``nn.SyncBatchNorm.convert_sync_batchnorm`` makes torch's of it.

    Haiku's sum so far, ``hidden``, follows from average and number of batches, average * (1 - d^n), and is not kept.
    Where it does not, as in a constructed state only, it is in ``hidden_mean`` and ``hidden_var``, which are buffers if
    a loaded state has them.

    Args:
        channels: C.
        decay: d (the authors': 0.9); ``momentum`` is 1 - d, as in torch.
        eps: added to the variance (the authors': 1e-5).

    Shape: (N, C, H, W), kept.

    Raises:
        UserError: in training, an input of one value per channel, which has no variance.

    Example:
        >>> norm = BatchNorm2d(1)
        >>> for batch in ([0., 2.], [4., 8.]):
        ...     _ = norm(torch.tensor(batch).view(2, 1, 1, 1))
        >>> round(norm.running_mean.item(), 4), round((0.9 * 1 + 6) / (0.9 + 1), 4)
        (3.6316, 3.6316)
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor
    hidden_mean: Tensor | None
    hidden_var: Tensor | None

    def __init__(self, channels: int, decay: float = 0.9, eps: float = 1e-5):
        super().__init__(channels, eps, momentum=1 - decay)
        for name in _HIDDEN:
            self.register_buffer(name, None)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        if f'{prefix}running_mean' in state_dict:
            for name in _HIDDEN:
                setattr(self, name, torch.zeros_like(self.running_mean) if prefix + name in state_dict else None)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W), at least two values a channel in training -> the same shape, normalised.

        Raises:
            UserError: in training, one value per channel.
        """
        if not self.training:
            return super().forward(x)
        count = x.numel() // self.num_features
        if count == 1:
            what = f'an input of shape {tuple(x.shape)} has one value per channel'
            raise UserError(f'{what}, which BatchNorm cannot train on: larger batches or images, or norm_eval=True')
        # momentum 1 makes these the batch's own mean and unbiased variance, without another pass over x
        mean, variance = torch.zeros_like(self.running_mean), torch.zeros_like(self.running_var)
        cudnn = torch.backends.cudnn.enabled
        out = torch.batch_norm(x, self.weight, self.bias, mean, variance, True, 1.0, self.eps, cudnn)
        if self.momentum:
            with torch.no_grad():
                self.num_batches_tracked.add_(1)
                # in float64 and on the device: exactly 1 at first, without waiting for the number
                weight = self.momentum / (1 - (1 - self.momentum) ** self.num_batches_tracked.double())
                weight = weight.to(mean.dtype)
                for average, hidden, value in (
                    (self.running_mean, self.hidden_mean, mean),
                    (self.running_var, self.hidden_var, variance * ((count - 1) / count)),
                ):
                    if hidden is None:
                        average.lerp_(value, weight)
                    else:
                        average.copy_(hidden.lerp_(value, self.momentum) * (weight / self.momentum))
        return out


@contextmanager
def fixed_averages(module: nn.Module) -> Iterator[None]:
    """Leave the running averages of every BatchNorm in a module as they are, in training too.

    Under it activations are recomputed for the backward pass: the averages have seen that batch already.
    """
    norms = [m for m in module.modules() if isinstance(m, _BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta):
            norm.momentum = momentum
