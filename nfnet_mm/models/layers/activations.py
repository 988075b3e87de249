"""Activations and the gains that keep their output at unit variance."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nfnet_mm import cpu_kernels
from nfnet_mm.errors import UserError, did_you_mean, short

from .standardize import differentiable, differentiated_otherwise, needs_plain_operations

Activation = Callable[[Tensor], Tensor]

# Gains as the public weights were trained with (the authors' released code; estimated there from random samples,
# which is why ReLU's is not exactly sqrt(2 / (1 - 1/pi))).
_GAINS = {
    'identity': 1.0,
    'celu': 1.270926833152771,
    'elu': 1.2716004848480225,
    'gelu': 1.7015043497085571,
    'leaky_relu': 1.70590341091156,
    'log_sigmoid': 1.9193484783172607,
    'relu': 1.7139588594436646,
    'relu6': 1.7131484746932983,
    'selu': 1.0008515119552612,
    'sigmoid': 4.803835391998291,
    'silu': 1.7881293296813965,
    'softsign': 2.338853120803833,
    'softplus': 1.9203323125839233,
    'tanh': 1.5939117670059204,
}
_GAINS['gelu_exact'] = _GAINS['gelu']


def _identity(x: Tensor) -> Tensor:
    return x


def gelu_tanh(x: Tensor) -> Tensor:
    """GELU in its tanh form, which is the authors'; of float32 on a CPU by a kernel of our own where there is one.

    torch's own takes three times as long there.
    """
    if needs_plain_operations() or not cpu_kernels.takes(x):
        return F.gelu(x, approximate='tanh')
    return _Gelu.apply(x) if x.requires_grad and torch.is_grad_enabled() else cpu_kernels.gelu(x)


class _Gelu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return cpu_kernels.gelu(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor | None:
        (x,) = ctx.saved_tensors
        if differentiated_otherwise(grad):
            (of_x,) = differentiable(partial(F.gelu, approximate='tanh'), (x,), (True,), grad)
            return of_x
        if not cpu_kernels.takes(x):  # what saved-tensor hooks made of it
            return torch.ops.aten.gelu_backward(grad, x, approximate='tanh')
        if not cpu_kernels.takes(grad) or grad.stride() != x.stride():  # of a padded copy, for instance
            grad = torch.empty_like(x).copy_(grad)
        return cpu_kernels.gelu_backward(grad, x)


# Importable by name, each of them, so that a network that holds one can be pickled.
_FUNCTIONS: dict[str, Activation] = {
    'identity': _identity,
    'gelu': gelu_tanh,
    'gelu_exact': F.gelu,
    'log_sigmoid': F.logsigmoid,
    'sigmoid': torch.sigmoid,
    'tanh': torch.tanh,
}
_OTHERS = ('hardswish', 'hardsigmoid', 'hardtanh', 'mish')  # of torch.nn.functional; their gains are computed


def get_activation(act: str | Activation) -> Activation:
    """The elementwise function of that name, without gain.

    Args:
        act: one of the names above (``'gelu'`` is the authors' tanh approximation, ``'gelu_exact'`` the erf one), or
            any elementwise callable on tensors, which is returned as it is.

    Raises:
        UserError: the name is unknown (the message lists the known ones); the callable overwrites its input, or is not
            elementwise.
    """
    if callable(act):
        _check_elementwise(act)
        return act
    known = sorted({*_GAINS, *_OTHERS})
    if isinstance(act, str) and act in known:
        return _FUNCTIONS[act] if act in _FUNCTIONS else getattr(F, act)
    hint = f'{did_you_mean(act, known)} Known: {", ".join(known)}; or give a callable.'
    raise UserError(f'act={act!r} is no known activation.{hint}')


def _check_elementwise(act: Activation) -> None:
    """Raise UserError if ``act`` makes of a tensor anything but another of its shape.

    One that overwrites its input is refused, too: that is the shortcut and a backbone's output as well.
    """
    if isinstance(act, type):
        raise UserError(f'act={act!r} is a class: give an instance of it')
    x = torch.linspace(-3, 3, 7, device='cpu').view(1, 1, 1, 7)
    before = x.clone()
    with torch.no_grad():
        try:
            y = act(x)
        except RuntimeError:  # of another dtype, or on the meta device: nothing can be seen here
            return
        except Exception as error:
            raise UserError(f'act={act!r} cannot be called on a tensor: {short(error)}') from error
    if not torch.equal(x, before):
        instead = 'give one that does not (inplace=False)'
        raise UserError(f'act={act!r} overwrites its input, which is read again as the shortcut: {instead}')
    if not isinstance(y, Tensor) or y.shape != x.shape or not y.is_floating_point():
        what = f'a tensor {tuple(y.shape)} of {y.dtype}' if isinstance(y, Tensor) else f'a {type(y).__name__}'
        raise UserError(f'act={act!r} is not elementwise: it makes {what} of a tensor {tuple(x.shape)} of {x.dtype}')


_NAMED = [get_activation(name) for name in (*_GAINS, *_OTHERS)]


def is_named(act: Activation) -> bool:
    """Whether a function is what :func:`get_activation` returns for one of the names, and not a caller's own."""
    return any(act is one for one in _NAMED)


def is_random(act: Activation) -> bool:
    """Whether a caller's own function makes something else of the same tensor when it is called again."""
    if is_named(act):
        return False
    x = torch.linspace(-3, 3, 1000, device='cpu')
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        try:
            return not torch.equal(act(x), act(x))
        except RuntimeError:  # of another dtype, or on the meta device: nothing can be seen here
            return False


def activation_gain(act: str | Activation) -> float:
    """The gain gamma for which gamma * act(x) has unit variance when x ~ N(0, 1).

    (NF-ResNets, section 4.3 and Appendix D.1; NFNets, section 3.) The authors' own figure where they published one,
    else computed to about 1e-6 by numerical integration.

    Example:
        >>> activation_gain('relu')
        1.7139588594436646
        >>> round(activation_gain(torch.relu), 4) == round(math.sqrt(2 / (1 - 1 / math.pi)), 4)
        True

    Raises:
        UserError: the activation is unknown, not elementwise, or constant on N(0, 1) samples.
    """
    if isinstance(act, str) and act in _GAINS:
        return _GAINS[act]
    fn = get_activation(act)
    x = torch.linspace(-12, 12, 480_001, dtype=torch.float64, device='cpu')
    density = torch.exp(-x * x / 2)
    density /= density.sum()
    with torch.no_grad():
        try:
            y = fn(x)
        except RuntimeError:  # a callable with float32 parameters of its own
            try:
                y = fn(x.float()).double()
            except RuntimeError as error:
                raise UserError(
                    f'act={act!r} has no gain, which takes a tensor of any shape: {short(error)}'
                ) from error
    variance = float((density * y * y).sum() - (density * y).sum() ** 2)
    if not (math.isfinite(variance) and variance > 1e-12):
        raise UserError(f'act={act!r} has variance {variance} on N(0, 1) inputs, so no gain can scale it to 1.')
    return variance**-0.5


class ScaledActivation(nn.Module):
    """gamma * act(x), at unit variance for x ~ N(0, 1) (NF-ResNets, section 4.3).

    The backbones fold gamma into the convs that read the activation and do not use this module inside; it serves
    where a scaled activation is wanted by itself.

    Args:
        act: name or elementwise callable, see :func:`get_activation`.

    Shape: any, kept.
    """

    def __init__(self, act: str | Activation = 'gelu'):
        super().__init__()
        self.act = get_activation(act)
        self.gain = activation_gain(act)

    def forward(self, x: Tensor) -> Tensor:
        """Any shape, kept: the activation times its gain."""
        return self.act(x) * self.gain

    def extra_repr(self) -> str:
        return f'gain={self.gain:.6g}'
