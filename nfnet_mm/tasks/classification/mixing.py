"""MixUp and CutMix in the data workers, so that RandAugment can follow (NFNets, Appendix A.3)."""

import warnings
from collections.abc import Sequence
from functools import cache
from typing import Any

import cv2
import numpy as np
import torch
from mmengine.dataset import default_collate
from torch import Tensor

from nfnet_mm.errors import UserError, check_number
from nfnet_mm.registry import FUNCTIONS

from .randaugment import NFRandAugment

_ALPHA = 0.2  # NFNets, Appendix A.3


def mix_up(a: Tensor, b: Tensor, weight: float) -> Tensor:
    """``weight * a + (1 - weight) * b`` in float32, for two images of one shape.

    >>> mix_up(torch.full((3, 1, 1), 100.0), torch.full((3, 1, 1), 201.0), 0.75).ravel()
    tensor([125.2500, 125.2500, 125.2500])
    """
    return torch.mul(a, weight).add_(b, alpha=1 - weight)


def cut_mix(a: Tensor, b: Tensor, weight: float, center: tuple[int, int]) -> tuple[Tensor, float]:
    """``a`` with a box of ``b`` of area share ``1 - weight`` around ``center`` (y, x), cut off at the border.

    Shape:
        (C, H, W), both of one type.

    Returns:
        The image, and the share of its pixels that are still ``a``'s.
    """
    height, width = a.shape[-2:]
    side = np.sqrt(1 - weight)
    half_y, half_x = int(side * height) // 2, int(side * width) // 2
    rows = slice(max(center[0] - half_y, 0), center[0] + half_y)
    columns = slice(max(center[1] - half_x, 0), center[1] + half_x)
    mixed = a.clone()
    mixed[..., rows, columns] = b[..., rows, columns]
    return mixed, 1 - mixed[0, rows, columns].numel() / (height * width)


@FUNCTIONS.register_module()
def mixing_collate(
    batch: Sequence[dict],
    num_classes: int,
    mixup: bool | float = True,
    cutmix: bool = True,
    randaugment: dict | None = None,
) -> dict:
    """A ``collate_fn`` that mixes the images and labels of a batch two by two, then augments the mixed images.

    So 2N images become N: as in the authors' released code, each goes into one mixture and no other. The first quarter
    is mixed with the second by MixUp, the third with the fourth by CutMix; with one kind of mixing alone, the first
    half with the second. Pairs that do not divide are MixUp's by one more than CutMix's, and the last of an odd number
    of images stays unmixed, which a warning says once per process. Each pair draws its own weight, from
    Beta(alpha, alpha) for MixUp and uniformly for CutMix. Random numbers come from numpy's global generator, which
    mmengine seeds in every worker.

    Pixels are mixed in float32 and may leave 0-255, as those of a bicubic resize do. RandAugment alone has them
    clipped, and cut off to uint8.

    Args:
        batch: what ``PackInputs`` returns: ``inputs`` (3, H, W), all float32 or all uint8 and of one size, and
            ``data_samples``, whose integer ``gt_label`` becomes ``gt_score`` (num_classes,), summing to 1.
        num_classes: length of the soft labels.
        mixup: whether there is MixUp; a number is its alpha, which else is 0.2.
        cutmix: whether there is CutMix. With neither of the two, N images remain N.
        randaugment: arguments of :class:`NFRandAugment`; None for no RandAugment.

    Returns:
        ``inputs`` (N, 3, H, W), uint8 after RandAugment and else float32, and a list of ``data_samples``, as mmengine's
        ``default_collate`` has them. ``mixing_collate.images_per_output(**arguments)`` tells a training loop whether
        one of them takes two images or one.

    Raises:
        ValueError: no image at all, images of other types or of different sizes, a label out of range, or a bad
            ``mixup`` or ``cutmix``.

    Example:
        In a config, ``train_dataloader = dict(collate_fn=dict(type='nfnet_mm.mixing_collate', num_classes=1000,
        randaugment=dict(magnitude=5)))``.

        >>> from mmpretrain.structures import DataSample
        >>> batch = [dict(inputs=torch.zeros(3, 8, 8), data_samples=DataSample().set_gt_label(i)) for i in range(4)]
        >>> mixed = mixing_collate(batch, num_classes=10)
        >>> mixed['inputs'].shape, mixed['data_samples'][0].gt_score.shape
        (torch.Size([2, 3, 8, 8]), torch.Size([10]))
    """
    images = [sample['inputs'] for sample in batch]
    if not images:
        raise UserError('mixing takes at least one image, got an empty batch: the sampler has none to give')
    kinds = {(str(img.dtype), tuple(img.shape)) for img in images}
    if len(kinds) > 1 or images[0].dtype not in (torch.float32, torch.uint8) or images[0].dim() != 3:
        what = 'images (3, H, W) of one size, all float32 or all uint8'
        raise UserError(f'mixing takes {what}, got {sorted(kinds)}')
    alpha = _alpha(mixup, cutmix)
    augment = None if randaugment is None else NFRandAugment(**randaugment)
    targets = [_one_hot(sample['data_samples'].gt_label, num_classes) for sample in batch]
    mixed: list[dict] = []
    for kind, i, j in _pairs(len(batch), alpha > 0, cutmix):
        img, weight = images[i], 1.0
        if kind == 'MixUp':
            weight = np.random.beta(alpha, alpha)
            img = mix_up(img, images[j], weight)
        elif kind == 'CutMix':
            center = np.random.randint(img.shape[1]), np.random.randint(img.shape[2])
            img, weight = cut_mix(img, images[j], np.random.rand(), center)
        img = img.float() if augment is None else _augmented(img, augment)
        target = batch[i]['data_samples'].clone()
        del target.gt_label  # no longer true
        target.set_gt_score(weight * targets[i] + (1 - weight) * targets[j])
        mixed.append({**batch[i], 'inputs': img, 'data_samples': target})
    return default_collate(mixed)


def images_per_output(mixup: bool | float = True, cutmix: bool = True, **others: Any) -> int:
    """How many images :func:`mixing_collate` makes one of, by its arguments.

    >>> images_per_output(num_classes=10), images_per_output(mixup=False, cutmix=False, num_classes=10)
    (2, 1)
    """
    return 2 if _alpha(mixup, cutmix) or cutmix else 1


vars(mixing_collate)['images_per_output'] = images_per_output


def _alpha(mixup: bool | float, cutmix: bool) -> float:
    """Of MixUp; 0 without."""
    if not isinstance(cutmix, bool):
        raise UserError(f'cutmix={cutmix!r} must be True or False')
    if isinstance(mixup, bool):
        return _ALPHA * mixup
    return check_number('mixup', mixup, '(0, inf)', ' (the alpha of its Beta distribution), True or False')


def _pairs(images: int, mixup: bool, cutmix: bool) -> list[tuple[str, int, int]]:
    """How each output is made, and of which two images; one that stays unmixed is paired with itself."""
    if not (mixup or cutmix):
        return [('', i, i) for i in range(images)]
    pairs = images // 2
    up = 0 if not mixup else (pairs + 1) // 2 if cutmix else pairs
    cut = pairs - up
    plan = [('MixUp', i, i + up) for i in range(up)] + [('CutMix', i, i + cut) for i in range(2 * up, 2 * up + cut)]
    if images % 2:
        _warn_of_odd_image()
        plan.append(('', images - 1, images - 1))
    return plan


@cache
def _warn_of_odd_image() -> None:
    """Once per process, whatever filters are set meanwhile."""
    warnings.warn(
        'an image is not mixed, for want of a partner: its batch has an odd number of them. For the last batch of an '
        'epoch that does no harm; train_dataloader.batch_size=1 would mean no MixUp and no CutMix at all',
        stacklevel=2,
    )


def _augmented(img: Tensor, augment: NFRandAugment) -> Tensor:
    """RandAugment of an image (3, H, W) in BGR, clipped and cut off to uint8."""
    blue, green, red = np.clip(img.numpy(), 0, 255).astype(np.uint8)
    pixels = augment.augment(cv2.merge([red, green, blue]))
    return torch.from_numpy(np.stack(cv2.split(pixels)[::-1]))


def _one_hot(label: Tensor, num_classes: int) -> Tensor:
    if label.numel() != 1 or not 0 <= int(label) < num_classes:
        raise UserError(f'gt_label={label.tolist()} must be one class of 0 to {num_classes - 1}')
    target = torch.zeros(num_classes)
    target[int(label)] = 1.0
    return target
