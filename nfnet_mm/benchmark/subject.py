"""A network on a device with its optimizer, and the steps that are measured."""

import contextlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nfnet_mm.deploy import fold, is_standardised
from nfnet_mm.engine import AGCOptimWrapper, AmpAGCOptimWrapper
from nfnet_mm.engine.agc import adaptive_clip_grad_
from nfnet_mm.errors import UserError

from .implementations import Implementation

DTYPES = dict(float32=torch.float32, bfloat16=torch.bfloat16, float16=torch.float16)
LAYOUTS = dict(contiguous=torch.contiguous_format, channels_last=torch.channels_last)
COMPILE_MODES = ('default', 'reduce-overhead', 'max-autotune', 'max-autotune-no-cudagraphs')
SMALLEST = 32  # px: the stride of a classifier's last stage
AGC = dict(clipping=0.01, eps=1e-3)  # NFNets, section 4.1
CLASSES = 1000
_LR = 1e-3  # small: hundreds of steps on one batch of noise must stay finite
_DECAY = 2e-5  # NFNets, section 6.1
# Fixed, so that no step is left out while a scale is looked for; the loss is about 7.
_SCALER: dict[str, Any] = dict(init_scale=1024.0, growth_interval=10**6)
_START = 0.1  # of gains that start at zero


class Unmeasured(Exception):
    """Something cannot be measured here; the message says why."""


@dataclass(frozen=True)
class Settings:
    """How a network is run.

    Attributes:
        device: ``'cpu'`` or ``'cuda'``.
        dtype: a key of ``DTYPES``; the two half types are those of autocast.
        layout: a key of ``LAYOUTS``.
        batch: images of a forward pass.
        micro_batches: forward and backward passes of an update.
        size: of the square images, in pixels.
        compiled: None for eager, or a mode of ``torch.compile``.
        fused: torch's fused SGD, or its loop over lists of tensors.
    """

    device: str
    dtype: str
    layout: str
    batch: int
    size: int
    micro_batches: int = 1
    compiled: str | None = None
    fused: bool = False


def check_settings(settings: Settings) -> None:
    """Raise :class:`UserError` unless a network can be run so on this machine."""
    if settings.device == 'cuda' and not torch.cuda.is_available():
        raise UserError('--device cuda: torch sees no CUDA device here; python -m nfnet_mm doctor tells more')
    if settings.compiled not in (None, *COMPILE_MODES):
        raise UserError(f'--compile {settings.compiled!r} is no mode of torch.compile: {", ".join(COMPILE_MODES)}')
    if settings.dtype == 'float16' and settings.device == 'cpu':
        raise UserError('--dtype float16 needs --device cuda: on a CPU autocast is measured with bfloat16')
    if settings.size < SMALLEST:
        raise UserError(f'--size {settings.size} must be at least {SMALLEST}, the stride of the last stage')
    if settings.fused and not has_fused_sgd(settings.device):
        raise UserError(f'torch {torch.__version__} has no fused SGD on {settings.device}: measure with --no-fused')


def has_fused_sgd(device: str) -> bool:
    """Whether torch has a fused SGD there: on CUDA from 2.3 on, on the CPU from 2.4 on."""
    if 'fused' not in inspect.signature(torch.optim.SGD).parameters:
        return False
    parameter = nn.Parameter(torch.zeros(1))
    try:
        if device == 'cpu':
            parameter.grad = torch.zeros(1)
            torch.optim.SGD([parameter], lr=0.1, fused=True).step()
    except RuntimeError:
        return False
    return True


class Subject:
    """An implementation as it is run.

    The SkipInit scalars and gains that start at zero are set to 0.1, so that every branch has a gradient, as after the
    first steps of a training.
    """

    def __init__(self, implementation: Implementation, settings: Settings, classes: int = CLASSES):
        check_settings(settings)
        self.implementation, self.settings = implementation, settings
        torch.manual_seed(0)
        network = implementation.build(classes)
        with torch.no_grad():
            for name, p in network.named_parameters():
                if (p.dim() == 0 or name.endswith('gain')) and not p.any():
                    p.fill_(_START)
        layout = LAYOUTS[settings.layout]
        network = network.to(settings.device).train()
        self.network: nn.Module = network.to(memory_format=layout)  # type: ignore[call-overload]
        shape = (settings.batch, 3, settings.size, settings.size)
        self.images = torch.randn(shape).to(settings.device, memory_format=layout)
        self.labels = torch.randint(classes, (settings.batch,)).to(settings.device)
        self.run: Callable[[Tensor], Tensor] = self.network
        if settings.compiled:
            self.run = torch.compile(self.network, mode=settings.compiled)
        self.parameters = [p for p in self.network.parameters() if p.requires_grad]
        self.update = _update(self)
        self._folded: Callable[[Tensor], Tensor] | None = None

    def autocast(self) -> contextlib.AbstractContextManager:
        """The context of a forward pass."""
        dtype = DTYPES[self.settings.dtype]
        if dtype is torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.settings.device, dtype)

    def set_training(self, training: bool) -> None:
        """Put the network into training or evaluation mode."""
        if self.network.training != training:
            self.network.train(training)

    def loss(self) -> Tensor:
        """A forward pass of training; the loss is float32."""
        with self.autocast():
            logits = self.run(self.images)
        return F.cross_entropy(logits.float(), self.labels)

    def train_step(self) -> None:
        """Forward and backward passes of all micro-batches, clipping if the implementation has it, and SGD's step."""
        count = self.settings.micro_batches
        for _ in range(count):
            loss = self.loss()
            self.update.backward(loss if count == 1 else loss / count)
        self.update.step()

    @torch.no_grad()
    def evaluate(self) -> Tensor:
        """A forward pass of evaluation: logits."""
        with self.autocast():
            return self.run(self.images)

    @torch.no_grad()
    def evaluate_folded(self) -> Tensor:
        """The same, of the network whose standardised weights are folded into plain convs; of others, as it is."""
        if self._folded is None:
            self._folded = self._fold()
        with self.autocast():
            return self._folded(self.images)

    def _fold(self) -> Callable[[Tensor], Tensor]:
        if not is_standardised(self.network):
            return self.run
        folded = fold(self.network)
        folded = folded.to(memory_format=LAYOUTS[self.settings.layout])  # type: ignore[call-overload]
        return torch.compile(folded, mode=self.settings.compiled) if self.settings.compiled else folded

    def clip(self) -> Callable[[], Any]:
        """The clipping function alone, of all parameters as the implementation's own training has it."""
        if self.implementation.clipping == 'timm':
            return _timm_clipping(self.network)
        if self.implementation.clipping is None:
            raise Unmeasured(f'{self.implementation.name} has no adaptive gradient clipping')
        rule: dict[str, Any] = dict(AGC, exclude=set(last_weights(self.network)))
        return lambda: adaptive_clip_grad_(self.parameters, **rule)


def last_weights(network: nn.Module) -> list[Tensor]:
    """The weight of the last linear layer, which is not clipped."""
    linear = [module for module in network.modules() if isinstance(module, nn.Linear)]
    return [linear[-1].weight] if linear else []


def _timm_clipping(network: nn.Module) -> Callable[[], Any]:
    from timm.models import model_parameters
    from timm.utils.agc import adaptive_clip_grad

    clipped = list(model_parameters(network, exclude_head=True))  # timm's own: without the last weight and bias
    return lambda: adaptive_clip_grad(clipped, clip_factor=AGC['clipping'], eps=AGC['eps'])


class _Plain:
    """Backward and update without this package: the optimizer alone, or behind timm's clipping."""

    def __init__(self, optimizer: torch.optim.Optimizer, clip: Callable[[], Any] | None, scaler: Any):
        self.optimizer, self.clip, self.scaler = optimizer, clip, scaler

    def backward(self, loss: Tensor) -> None:
        (loss if self.scaler is None else self.scaler.scale(loss)).backward()

    def step(self) -> None:
        if self.scaler is not None and self.clip:
            self.scaler.unscale_(self.optimizer)
        if self.clip:
            self.clip()
        if self.scaler is None:
            self.optimizer.step()
        else:
            self.scaler.step(self.optimizer)
            self.scaler.update()
        self.optimizer.zero_grad()


class _Ours:
    """Backward and update by the optimizer wrapper of a training, with its guard and what it logs."""

    def __init__(self, optimizer: torch.optim.Optimizer, network: nn.Module, dtype: str):
        kwargs: dict[str, Any] = dict(optimizer=optimizer, agc=dict(AGC))
        if dtype == 'float32':
            self.wrapper = AGCOptimWrapper(**kwargs)
        else:
            scale: Any = _SCALER if dtype == 'float16' else 'dynamic'
            self.wrapper = AmpAGCOptimWrapper(loss_scale=scale, dtype=dtype, **kwargs)
        self.wrapper.bind(network, last_weights(network))

    def backward(self, loss: Tensor) -> None:
        self.wrapper.backward(loss)

    def step(self) -> None:
        self.wrapper.step()
        self.wrapper.zero_grad()


def _update(subject: Subject) -> Any:
    """The second half of a training step: SGD with Nesterov momentum 0.9, the same for all."""
    settings, network = subject.settings, subject.network
    named = [(name, p) for name, p in network.named_parameters() if p.requires_grad]
    decayed = [p for name, p in named if p.dim() > 1 and not name.endswith('gain')]
    others = [p for name, p in named if p.dim() < 2 or name.endswith('gain')]
    groups = [dict(params=decayed, weight_decay=_DECAY), dict(params=others, weight_decay=0.0)]
    how = dict(fused=True) if settings.fused else dict(foreach=True)
    optimizer = torch.optim.SGD([group for group in groups if group['params']], _LR, 0.9, nesterov=True, **how)
    if subject.implementation.clipping == 'ours':
        return _Ours(optimizer, network, settings.dtype)
    clip = _timm_clipping(network) if subject.implementation.clipping == 'timm' else None
    return _Plain(optimizer, clip, _scaler() if settings.dtype == 'float16' else None)


def _scaler() -> Any:
    return torch.amp.GradScaler('cuda', **_SCALER) if hasattr(torch.amp, 'GradScaler') else _old_scaler()


def _old_scaler() -> Any:
    return torch.cuda.amp.GradScaler(**_SCALER)
