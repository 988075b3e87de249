"""Scaled weight standardisation, in both dialects in which public weights exist."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from nfnet_mm.errors import UserError

from .padding import pad_same

try:
    from torch.compiler import is_compiling
except ImportError:  # before torch 2.2
    from torch._dynamo import is_compiling

DIALECTS = ('authors', 'timm')
PADDINGS = ('same', 'symmetric')
_AUTHORS_FLOOR = 1e-4
_TIMM_EPS = 1e-5


def _standardize(weight: Tensor, gain: Tensor, dialect: str) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """(O, N) weights and (O,) gains -> centred (O, N) and their scale (O, 1), whose product is standardised.

    Then the (O, 1) numbers that the gradient of that product is made of: mean, inverse norm, and shrink.
    """
    variance, mean = torch.var_mean(weight, 1, correction=0, keepdim=True)
    fan_in = weight.shape[1]
    if dialect == 'authors':
        energy = variance * fan_in
        inverse = energy.clamp(min=_AUTHORS_FLOOR).rsqrt()
        # how much of the row's own scale the division took out: all of it, or none where the floor holds
        shrink = inverse * (energy > _AUTHORS_FLOOR)
    else:
        shrink = inverse = ((variance + _TIMM_EPS) * fan_in).rsqrt()
    # to be multiplied as (weight - mean) * scale: weight * scale - mean * scale loses digits where the mean is large
    return weight - mean, inverse * gain[:, None], mean, inverse, shrink


class _Standardize(torch.autograd.Function):
    """:func:`_standardize`, keeping only the weight and three numbers a row for the backward pass.

    That is a row-wise a * grad + b * w + c, so that no centred copy of the weights is ever stored.
    """

    @staticmethod
    def forward(ctx: Any, weight: Tensor, gain: Tensor, dialect: str) -> Tensor:
        centred, scale, *rows = _standardize(weight, gain, dialect)
        ctx.save_for_backward(weight, gain, *rows)
        return centred.mul_(scale)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        weight, gain, mean, inverse, shrink = ctx.saved_tensors
        total = grad.sum(1, keepdim=True)
        # <grad, weight - mean> of each row, reduced without writing a product as large as the weights
        with torch.autocast(weight.device.type, enabled=False):  # which would run the product in half precision
            along = torch.linalg.vecdot(grad, weight, dim=1)[:, None] - mean * total
        gain_grad = (along * inverse)[:, 0]
        scale = inverse * gain[:, None]
        slope = -scale * shrink * shrink * along
        offset = -(scale * total) / weight.shape[1] - slope * mean
        return torch.addcmul(torch.addcmul(offset, weight, slope), grad, scale), gain_grad, None


def standardize_weight(weight: Tensor, gain: Tensor, dialect: str = 'authors') -> Tensor:
    """Scaled weight standardisation: every output unit gets zero mean and the norm |gain|.

    With N the fan-in, and mean and (biased) variance taken over it:

    - ``'authors'``: (W - mean) * gain / sqrt(max(var * N, 1e-4)), the released code of both papers;
    - ``'timm'``: (W - mean) * gain / sqrt((var + 1e-5) * N), what timm's own weights were trained with.

    (NF-ResNets, section 4.2.) Differentiable once, within ``torch.func`` as often as one likes. Half-precision weights
    are standardised in float32.

    Args:
        weight: (O, I / groups, kh, kw).
        gain: (O,), constant factors (gamma, beta) already multiplied in.
        dialect: one of the two above.

    Returns: the standardised weight, of the shape and dtype of ``weight``.

    Example:
        >>> w = standardize_weight(torch.randn(8, 3, 5, 5), torch.full((8,), 2.))
        >>> bool(w.mean((1, 2, 3)).abs().max() < 1e-6), torch.allclose(w.flatten(1).norm(dim=1), torch.tensor(2.))
        (True, True)
    """
    dtype = torch.float64 if weight.dtype == torch.float64 else torch.float32
    arguments = weight.to(dtype).flatten(1), gain.to(dtype), dialect
    if is_compiling() or torch.jit.is_tracing() or torch._C._are_functorch_transforms_active():
        # torch.compile gives zero gradients, without a word, to a Function that is differentiable once (torch 2.11);
        # what is worth storing it finds out by itself. A trace with a Function in it cannot be saved, and torch.func
        # refuses it: vmap, jvp and gradients of gradients work on plain operations.
        centred, scale, *_ = _standardize(*arguments)
        out = centred * scale
    else:
        out = _Standardize.apply(*arguments)
    return out.to(weight.dtype).view_as(weight)


class WSConv2d(nn.Conv2d):
    """Conv with scaled weight standardisation, a learned gain per output channel and an input scale for free.

    Args:
        in_channels, out_channels, kernel_size, stride, dilation, groups: as in ``nn.Conv2d``, square only.
        input_scale: a constant that multiplies the input (gamma * beta of the activation that this conv reads, for
            instance); it is folded into the weights and costs no pass over the input.
        dialect: ``'authors'`` or ``'timm'``, see :func:`standardize_weight`.
        padding: ``'same'`` (TensorFlow's rule, as the authors') or ``'symmetric'`` (timm's).
        gain_init: initial value of the gain.

    Parameters: ``weight`` (O, I / groups, k, k), ``gain`` (O,), ``bias`` (O,).

    Shape: (N, I, H, W) -> (N, O, ceil(H / stride), ceil(W / stride)).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        input_scale: float = 1.0,
        dialect: str = 'authors',
        padding: str = 'same',
        gain_init: float = 1.0,
    ):
        if dialect not in DIALECTS:
            raise UserError(f'dialect={dialect!r} is not one of {DIALECTS}')
        if padding not in PADDINGS:
            raise UserError(f'padding={padding!r} is not one of {PADDINGS}')
        # With stride 1 and an odd kernel both rules are the same fixed padding, known here and now.
        both = dilation * (kernel_size - 1) // 2
        super().__init__(in_channels, out_channels, kernel_size, stride, both, dilation, groups)
        self.pad_same = padding == 'same' and (stride > 1 or kernel_size % 2 == 0)
        self.dialect = dialect
        self.input_scale = input_scale
        self.gain = nn.Parameter(torch.full((out_channels,), float(gain_init)))

    def reset_parameters(self) -> None:
        """Weights from N(0, 1 / fan-in), bias zero (authors' code)."""
        nn.init.normal_(self.weight, std=self.weight[0].numel() ** -0.5)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def standardized_weight(self, scale: Tensor | None = None) -> Tensor:
        """The (O, I / groups, k, k) weight that the conv really applies; ``scale`` multiplies it for free."""
        gain = self.gain * self.input_scale
        return standardize_weight(self.weight, gain if scale is None else gain * scale, self.dialect)

    def forward(self, x: Tensor, scale: Tensor | None = None) -> Tensor:
        """The conv of ``x``; ``scale``, a 0-d tensor, multiplies the whole output through weight and bias."""
        padding: str | tuple[int, ...] = self.padding
        if self.pad_same:
            x, padding = pad_same(x, self.kernel_size[0], self.stride[0], self.dilation[0])
        bias = self.bias if scale is None or self.bias is None else self.bias * scale
        return F.conv2d(x, self.standardized_weight(scale), bias, self.stride, padding, self.dilation, self.groups)

    def extra_repr(self) -> str:
        return f'{super().extra_repr()}, input_scale={self.input_scale:.6g}, dialect={self.dialect}'
