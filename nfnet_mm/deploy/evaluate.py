"""A task's own metric of an exported network: the framework's test, with the file in the place of the network."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.structures import InstanceData
from torch import Tensor
from torch.nn import functional as F

from nfnet_mm.errors import UserError

from .detector import paste_masks


def evaluate(runner: Any, function: Callable[[Tensor], Any] | None = None) -> dict[str, float]:
    """The metrics of a runner's test data.

    Args:
        runner: mmengine's, whose model has its weights.
        function: what computes in the place of the model's network, such as a session of onnxruntime: of images (N, 3,
            H, W), normalised, logits (N, classes) of a classifier, and maps (N, C, h, w) of a segmentor or a depth
            estimator; of one image (1, 3, H, W) what :class:`ExportableDetector` returns. By default the network.

    Raises:
        UserError: the model is of none of these kinds.
    """
    if function is None:
        return runner.test()
    with _replaced(runner.model, function):
        return runner.test()


@contextmanager
def _replaced(model: Any, function: Callable[[Tensor], Any]) -> Iterator[None]:
    """Let a model compute by a function."""
    if hasattr(model, 'encode_decode'):
        name, replacement = 'encode_decode', _maps(model, function)
    elif hasattr(model, 'add_pred_to_datasample'):
        name, replacement = 'predict', _objects(model, function)
    elif hasattr(getattr(model, 'head', None), '_get_predictions'):
        name, replacement = 'predict', _classes(model, function)
    else:
        raise UserError(f'{type(model).__name__} is no classifier, detector, segmentor or depth estimator known here')
    setattr(model, name, replacement)
    try:
        yield
    finally:
        delattr(model, name)  # the class's own is found again


def _maps(model: Any, function: Callable[[Tensor], Any]) -> Callable[..., Tensor]:
    def encode_decode(inputs: Tensor, batch_img_metas: Any) -> Tensor:
        maps, size = function(inputs), inputs.shape[2:]
        same = maps.shape[2:] == size
        return maps if same else F.interpolate(maps, size, mode='bilinear', align_corners=model.align_corners)

    return encode_decode


def _classes(model: Any, function: Callable[[Tensor], Any]) -> Callable[..., Any]:
    return lambda inputs, data_samples=None, **_: model.head._get_predictions(function(inputs), data_samples)


def _objects(model: Any, function: Callable[[Tensor], Any]) -> Callable[..., Any]:
    def predict(inputs: Tensor, data_samples: Sequence[Any], rescale: bool = True) -> Any:
        found = []
        for image, sample in zip(inputs, data_samples):
            height, width = sample.img_shape[:2]
            boxes, scores, labels, *masks = function(image[None, :, :height, :width])
            if rescale:
                boxes = boxes / boxes.new_tensor(sample.scale_factor).repeat(2)
                height, width = sample.ori_shape[:2]
            objects = InstanceData(bboxes=boxes, scores=scores, labels=labels)
            if masks:
                whole = [paste_masks(one[None], box[None], height, width) for one, box in zip(masks[0], boxes)]
                empty = torch.zeros(0, height, width)
                objects.masks = torch.cat([empty, *whole]) >= model.roi_head.test_cfg.mask_thr_binary
            found.append(objects)
        return model.add_pred_to_datasample(data_samples, found)

    return predict
