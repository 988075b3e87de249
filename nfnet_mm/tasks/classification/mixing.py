"""MixUp and CutMix in the data workers, on uint8 images, so that RandAugment can follow (NFNets, Appendix A.3)."""

import warnings
from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from mmengine.dataset import default_collate
from torch import Tensor

from nfnet_mm.errors import UserError
from nfnet_mm.registry import FUNCTIONS

from .randaugment import NFRandAugment


def mix_up(a: np.ndarray, b: np.ndarray, weight: float) -> np.ndarray:
    """``weight * a + (1 - weight) * b``, rounded, for two uint8 images of one shape.

    >>> mix_up(np.full((1, 1, 3), 100, np.uint8), np.full((1, 1, 3), 200, np.uint8), 0.75).ravel()
    array([125, 125, 125], dtype=uint8)
    """
    mixed = b + np.float32(weight) * (a.astype(np.float32) - b)
    return np.rint(mixed, out=mixed).astype(np.uint8)


def cut_mix(a: np.ndarray, b: np.ndarray, weight: float, center: tuple[int, int]) -> tuple[np.ndarray, float]:
    """``a`` with a box of ``b`` of area share ``1 - weight`` around ``center`` (y, x), cut off at the border.

    Returns:
        The image, and the share of its pixels that are still ``a``'s.
    """
    height, width = a.shape[:2]
    side = np.sqrt(1 - weight)
    half_y, half_x = int(side * height) // 2, int(side * width) // 2
    box = np.s_[max(center[0] - half_y, 0) : center[0] + half_y, max(center[1] - half_x, 0) : center[1] + half_x]
    mixed = a.copy()
    mixed[box] = b[box]
    return mixed, 1 - mixed[box][..., 0].size / (height * width)


@FUNCTIONS.register_module()
def mixing_collate(
    batch: Sequence[dict], num_classes: int, mixup_alpha: float = 0.2, randaugment: dict | None = None
) -> dict:
    """A ``collate_fn`` that mixes the images and labels of a batch, then augments the mixed images.

    The first half of the batch gets MixUp, the second CutMix (of an odd number, MixUp one more). Each image draws its
    own weight, from Beta(alpha, alpha) for MixUp and uniformly for CutMix; its partner is the next one of the batch,
    the last one's the first: the sampler has shuffled them. An image alone, as an epoch's last batch may be, has no
    partner: it is augmented unmixed, which a warning says once per process. Random numbers come from numpy's global
    generator, which mmengine seeds in every worker.

    Args:
        batch: what ``PackInputs`` returns: ``inputs`` uint8 (3, H, W), all of one size, and ``data_samples``, whose
            integer ``gt_label`` becomes ``gt_score`` (num_classes,), summing to 1.
        num_classes: length of the soft labels.
        mixup_alpha: of MixUp's Beta distribution.
        randaugment: arguments of :class:`NFRandAugment`; None for no RandAugment.

    Returns:
        ``inputs`` (N, 3, H, W) and a list of ``data_samples``, as mmengine's ``default_collate`` has them.

    Raises:
        ValueError: no image at all, images of other types or of different sizes, or a label out of range.

    Example:
        In a config, ``train_dataloader = dict(collate_fn=dict(type='nfnet_mm.mixing_collate', num_classes=1000,
        randaugment=dict(magnitude=5)))``.

        >>> from mmpretrain.structures import DataSample
        >>> batch = [dict(inputs=torch.zeros(3, 8, 8, dtype=torch.uint8), data_samples=DataSample().set_gt_label(i))
        ...          for i in range(4)]
        >>> mixed = mixing_collate(batch, num_classes=10)
        >>> mixed['inputs'].shape, mixed['data_samples'][0].gt_score.shape
        (torch.Size([4, 3, 8, 8]), torch.Size([10]))
    """
    images = [sample['inputs'] for sample in batch]
    if not images:
        raise UserError('mixing takes at least one image, got an empty batch: the sampler has none to give')
    kinds = {(str(img.dtype), tuple(img.shape)) for img in images}
    if len(kinds) > 1 or images[0].dtype != torch.uint8 or images[0].dim() != 3:
        raise UserError(f'mixing takes uint8 images (3, H, W) of one size, got {sorted(kinds)}')
    augment = None if randaugment is None else NFRandAugment(**randaugment)
    arrays = [img.permute(1, 2, 0).numpy() for img in images]  # (H, W, 3), BGR
    targets = [_one_hot(sample['data_samples'].gt_label, num_classes) for sample in batch]
    if len(batch) == 1:
        _warn_of_one_image()
    mixed: list[dict] = []
    for i, sample in enumerate(batch):
        j = (i + 1) % len(batch)
        if len(batch) == 1:
            img, weight = arrays[i].copy(), 1.0
        elif 2 * i < len(batch):
            weight = np.random.beta(mixup_alpha, mixup_alpha)
            img = mix_up(arrays[i], arrays[j], weight)
        else:
            height, width = arrays[i].shape[:2]
            center = np.random.randint(height), np.random.randint(width)
            img, weight = cut_mix(arrays[i], arrays[j], np.random.rand(), center)
        if augment is not None:
            img = augment(dict(img=img))['img']
        target = sample['data_samples'].clone()
        del target.gt_label  # no longer true
        target.set_gt_score(weight * targets[i] + (1 - weight) * targets[j])
        mixed.append({**sample, 'inputs': torch.from_numpy(img).permute(2, 0, 1).contiguous(), 'data_samples': target})
    return default_collate(mixed)


@cache
def _warn_of_one_image() -> None:
    """Once per process, whatever filters are set meanwhile."""
    warnings.warn(
        'a batch of one image is not mixed, for want of a partner. For the last batch of an epoch that does '
        'no harm; train_dataloader.batch_size=1 would mean no MixUp and no CutMix at all',
        stacklevel=2,
    )


def _one_hot(label: Tensor, num_classes: int) -> Tensor:
    if label.numel() != 1 or not 0 <= int(label) < num_classes:
        raise UserError(f'gt_label={label.tolist()} must be one class of 0 to {num_classes - 1}')
    target = torch.zeros(num_classes)
    target[int(label)] = 1.0
    return target
