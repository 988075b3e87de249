"""Small classifiers of real digits, trained in memory: what most of the claims are measured on."""

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper, build_optim_wrapper
from mmengine.registry import MODELS
from torch import Tensor, nn
from torch.nn import functional as F

from demo.digits import load_scans
from nfnet_mm.errors import DivergedError

SIZE = 16  # px: the scans have 8 x 8, enlarged so that four stages have something to reduce
GUESSING = 10.0  # percent
NOISE = 0.5  # standard deviations, so that the task is not over after one pass
# A ResNet of four bottleneck blocks for images of 16 px: 8, 4, 2 and 1 px in its stages.
SHAPE = dict(
    widths=(16, 32, 48, 64),
    depths=(1, 1, 1, 1),
    bottleneck_ratio=0.5,
    stem_channels=(16,),
    stem_kernel=3,
    stem_strides=(2,),
    stem_pool=None,
)


class Digits(NamedTuple):
    """Images, (N, 3, size, size) at zero mean and unit variance, and labels, (N,), to train on and to validate."""

    images: Tensor
    labels: Tensor
    val_images: Tensor
    val_labels: Tensor


def load(seed: int, size: int = SIZE) -> Digits:
    """scikit-learn's digits of ``size`` pixels with noise, a fifth of the scans held out; the seed decides which."""
    rng = np.random.default_rng(seed)
    scans, labels, train, val = load_scans(rng)
    images = torch.from_numpy(scans).float()[:, None]
    images = F.interpolate((images - images.mean()) / images.std(), size=(size, size), mode='bilinear')
    images = images.expand(-1, 3, -1, -1) + NOISE * torch.from_numpy(rng.standard_normal((len(scans), 3, size, size)))
    images = (images / math.sqrt(1 + NOISE**2)).float()
    classes = torch.from_numpy(labels)
    return Digits(images[train], classes[train], images[val], classes[val])


class Classifier(BaseModel):
    """A backbone, global average pooling, and a linear layer that starts at std 0.01.

    Args:
        backbone: the config of one whose last output is pooled.
    """

    def __init__(self, backbone: Mapping[str, Any]):
        super().__init__()
        self.backbone = MODELS.build(dict(out_indices=(4,), **backbone))
        self.head = nn.Module()  # so that the classifier is called head.fc, which AGC leaves out
        self.head.fc = nn.Linear(self.backbone.out_channels[-1], 10)
        nn.init.normal_(self.head.fc.weight, std=0.01)
        nn.init.zeros_(self.head.fc.bias)

    def forward(self, inputs: Tensor, labels: Tensor | None = None, mode: str = 'tensor') -> Any:
        """(N, 3, H, W) images: (N, 10) logits, or with ``mode='loss'`` the mean cross-entropy."""
        logits = self.head.fc(self.backbone(inputs)[-1].mean((2, 3)))
        return dict(loss=F.cross_entropy(logits, labels)) if mode == 'loss' else logits


def build(kind: str, seed: int) -> Classifier:
    """A classifier with the small ResNet: ``'nf'`` or ``'bn'``; the seed decides its weights."""
    torch.manual_seed(seed)
    return Classifier(dict(type='nfnet_mm.NFResNet' if kind == 'nf' else 'nfnet_mm.BNResNet', arch=SHAPE))


def optimizer(model: nn.Module, lr: float, clipping: float | None, adam: bool = False) -> OptimWrapper:
    """SGD with Nesterov's momentum or AdamW, with AGC or (``None``) without, in the papers' parameter groups."""
    agc = {} if clipping is None else dict(agc=dict(clipping=clipping, eps=1e-3))
    kind = 'OptimWrapper' if clipping is None else 'nfnet_mm.AGCOptimWrapper'
    sgd = dict(type='SGD', lr=lr, momentum=0.9, nesterov=True, weight_decay=1e-4)
    how = dict(type='AdamW', lr=lr, weight_decay=0.05) if adam else sgd
    return build_optim_wrapper(
        model, dict(type=kind, constructor='nfnet_mm.NFOptimWrapperConstructor', optimizer=how, **agc)
    )


def batches(count: int, batch: int, steps: int, seed: int) -> Iterator[Tensor]:
    """Indices of ``steps`` batches out of ``count`` samples: each at most once in a pass, whose rest is left out."""
    generator, order = torch.Generator().manual_seed(seed), torch.empty(0, dtype=torch.long)
    for _ in range(steps):
        if len(order) < batch:
            order = torch.randperm(count, generator=generator)
        yield order[:batch]
        order = order[batch:]


def train(
    model: Classifier,
    data: Digits,
    batch: int,
    steps: int,
    lr: float,
    clipping: float | None,
    seed: int,
    adam: bool = False,
) -> float:
    """Train for some updates with a tenth of warm-up and a cosine to zero.

    Returns: the accuracy on the held-out scans, in percent. A training that has diverged has that of guessing.
    """
    wrapper = optimizer(model, lr, clipping, adam)
    warm = max(1, steps // 10)
    model.train()
    for step, rows in enumerate(batches(len(data.images), batch, steps, seed)):
        scale = (step + 1) / warm if step < warm else 0.5 + 0.5 * math.cos(math.pi * (step - warm) / (steps - warm))
        for group in wrapper.param_groups:
            group['lr'] = lr * scale
        try:
            losses = model.train_step(dict(inputs=data.images[rows], labels=data.labels[rows]), wrapper)
        except DivergedError:
            return GUESSING
        if not math.isfinite(losses['loss']):
            return GUESSING
    return accuracy(model, data)


@torch.no_grad()
def accuracy(model: Classifier, data: Digits) -> float:
    """On the held-out scans, in percent."""
    model.eval()
    return 100 * (model(data.val_images).argmax(1) == data.val_labels).float().mean().item()
