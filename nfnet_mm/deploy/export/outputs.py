"""What a model of a framework is to a deployer: images in, named tensors out. Known by what it has, not its class."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nfnet_mm.errors import UserError

from ..detector import ExportableDetector


class Deployed(nn.Module):
    """A model that takes (N, C, H, W) images in float32 and gives tensors.

    Args:
        model: the framework's.
        names: of the outputs.
        mean, std: of the channels, to be taken off and divided by first; none where the images come normalised.
    """

    mean: Tensor | None
    std: Tensor | None
    axes: Mapping[str, Mapping[int, str]] | None = None  # of the outputs, that are free; None: the batch
    one_image = False  # in a batch
    bound = 0.0  # of the relative difference, where it is above the caller's

    def __init__(
        self,
        model: nn.Module,
        names: Sequence[str],
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        flip: bool = False,
    ):
        super().__init__()
        self.model, self.names, self.flip = model, tuple(names), flip
        for name, value in (('mean', mean), ('std', std)):
            self.register_buffer(name, None if value is None else torch.tensor(value).float().view(1, -1, 1, 1))

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """The outputs."""
        if self.flip:
            images = images.flip(1)
        if self.mean is not None and self.std is not None:
            images = (images - self.mean) / self.std
        return self.outputs(images)

    def outputs(self, images: Tensor) -> tuple[Tensor, ...]:
        """Of normalised images."""
        outputs = self.model(images)
        return (outputs,) if isinstance(outputs, Tensor) else tuple(outputs)


class DeployedClassifier(Deployed):
    """``logits`` and ``scores``, their softmax, (N, classes)."""

    def outputs(self, images: Tensor) -> tuple[Tensor, ...]:
        """Of normalised images."""
        logits = self.model(images, mode='tensor')
        return logits, logits.softmax(1)


class DeployedMap(Deployed):
    """A segmentor's ``logits``, (N, classes, H, W), or a ``depth`` (N, 1, H, W) in metres, in the images' size."""

    def outputs(self, images: Tensor) -> tuple[Tensor, ...]:
        """Of normalised images."""
        model: Any = self.model
        out = model.decode_head(model.extract_feat(images))
        align = bool(model.decode_head.align_corners)
        return (F.interpolate(out, size=images.shape[2:], mode='bilinear', align_corners=align),)


class DeployedDetector(Deployed):
    """What an :class:`ExportableDetector` returns; of one picture, as the number of objects is another in each."""

    one_image = True
    bound = 1e-3  # masks are read at places that have rounding errors themselves

    def __init__(self, model: nn.Module, names: Sequence[str] = (), **options: object):
        net = model if isinstance(model, ExportableDetector) else ExportableDetector(model)
        super().__init__(net, names or net.outputs, **options)  # type: ignore[arg-type]
        self.axes: Mapping[str, Mapping[int, str]] = {name: {0: 'objects'} for name in net.outputs}
        if net.with_mask and net.paste:
            self.axes = {**self.axes, 'masks': {0: 'objects', 1: 'height', 2: 'width'}}
        self.eval()

    @contextmanager
    def finding(self, images: Tensor, least: int = 5) -> Iterator[None]:
        """Lower the least score, for as long as it lasts, until something is found in images of random numbers.

        There is not much to compare otherwise: a trained detector finds nothing in them.
        """
        detector: Any = self.model.detector
        cfg = (detector.roi_head if self.model.two_stage else detector.bbox_head).test_cfg
        before = cfg.score_thr
        try:
            for factor in (1, 0.1, 1e-2, 1e-3, 1e-4, 0):
                cfg.score_thr = before * factor
                with torch.no_grad():
                    if len(self(images)[1]) >= least:
                        break
            yield
        finally:
            cfg.score_thr = before


def model_kind(model: nn.Module) -> str:
    """'backbone', 'classifier', 'segmentor', 'depth', 'detector' or 'other'."""
    if any(hasattr(model, name) for name in ('bbox_head', 'roi_head', 'rpn_head')):
        return 'detector'
    if hasattr(model, 'decode_head'):
        return 'depth' if 'DepthEstimator' in [kind.__name__ for kind in type(model).__mro__] else 'segmentor'
    if hasattr(model, 'backbone') and hasattr(model, 'head'):
        return 'classifier'
    return 'backbone' if hasattr(model, 'out_indices') else 'other'


def deployed(model: nn.Module, with_preprocessing: bool = False, paste_masks: bool = False) -> Deployed:
    """A framework's model as what is exported.

    Args:
        model: a backbone, or a classifier, detector, segmentor or depth model of a framework.
        with_preprocessing: take RGB images with values from 0 to 255, and normalise them as the model's data
            preprocessor does; else they come normalised, in the network's order of channels.
        paste_masks: of a detector, masks as large as the picture instead of the mask head's own, in the boxes.

    Raises:
        UserError: nothing is known of such a model, or it has no data preprocessor.
    """
    kind = model_kind(model)
    options: dict[str, Any] = {}
    if with_preprocessing:
        found = preprocessing(model)
        if not found:
            raise UserError(f'{type(model).__name__} has no data preprocessor whose normalisation the graph could do')
        options = dict(mean=found['mean'], std=found['std'], flip=found['channel_order'] == 'BGR')
    if kind == 'detector':
        return DeployedDetector(ExportableDetector(model, paste_masks), **options)
    if kind == 'classifier':
        return DeployedClassifier(model, ('logits', 'scores'), **options)
    if kind in ('segmentor', 'depth'):
        if isinstance(getattr(model, 'decode_head', None), nn.ModuleList):
            raise UserError(f'{type(model).__name__} has several decode heads, for which there is no export here')
        return DeployedMap(model, ('depth' if kind == 'depth' else 'logits',), **options)
    if kind == 'backbone':
        indices: Any = model.out_indices
        return Deployed(model, ['feature' if i == 4 else f'stage{i + 1}' for i in indices], **options)
    raise UserError(f'{type(model).__name__} is no backbone, classifier, segmentor or depth model')


def preprocessing(model: nn.Module) -> dict[str, Any]:
    """Mean and standard deviation of values from 0 to 255, and the order of channels that the network takes."""
    given: Any = getattr(model, 'data_preprocessor', None)
    mean, std = getattr(given, 'mean', None), getattr(given, 'std', None)
    if mean is None or std is None:
        return {}
    # pictures are read in OpenCV's order
    swaps = getattr(given, 'channel_conversion', None) or getattr(given, '_channel_conversion', None)
    swaps = swaps or getattr(given, 'to_rgb', False)
    return dict(mean=mean.flatten().tolist(), std=std.flatten().tolist(), channel_order='RGB' if swaps else 'BGR')


def stride_of(model: nn.Module) -> int:
    """The pixels, in height and in width, that become one of the deepest feature map; 1 where no backbone tells.

    >>> from nfnet_mm.models import NFNet
    >>> stride_of(NFNet('nano'))
    32
    """
    return max((max(getattr(part, 'out_strides', (1,))) for part in model.modules()), default=1)
