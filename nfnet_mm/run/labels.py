"""Hold the labels that a run meets against the classes of its model, on the CPU and as they pass."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import Tensor, nn

from nfnet_mm.errors import UserError, short

from .classes import some_names


def check_labels(runner: Runner) -> None:
    """Let a run end in one line at a label that is none of the model's classes, or at data with other classes.

    Without it such a label is an error of an index on some devices, and on others wrong memory; a metric passes over
    it.
    """
    runner.register_hook(_LabelHook())


class _LabelHook(Hook):
    """Compare the datasets' classes with the model's before the first batch, and watch the labels from then on."""

    def before_run(self, runner: Runner) -> None:
        model: Any = runner.model
        while is_model_wrapper(model):
            model = model.module
        head = main_head(model)
        if head is None:
            return
        # The loops that the run will use are built by now; mmengine keeps the others as configs.
        for split in ('train', 'val', 'test'):
            loop = getattr(runner, f'_{split}_loop')
            loader = getattr(loop, 'dataloader', None)
            check_dataset_classes(getattr(loader, 'dataset', None), split, head.num_classes, model)
        preprocessor = getattr(model, 'data_preprocessor', None)
        if isinstance(preprocessor, nn.Module):
            preprocessor.register_forward_pre_hook(_LabelCheck(head.num_classes, getattr(head, 'ignore_index', 255)))


def main_head(model: nn.Module) -> Any:
    """The head whose ``num_classes`` are the model's; None if there is none, as in a model of depths."""
    if any(kind.__name__ == 'DepthEstimator' for kind in type(model).__mro__):  # mmseg's, whose one class is the depth
        return None
    for name in ('head', 'decode_head', 'bbox_head', 'roi_head.bbox_head'):
        head: Any = model
        for part in name.split('.'):
            head = getattr(head, part, None)
        if isinstance(head, nn.ModuleList) and len(head):  # a cascade, whose last stage predicts
            head = head[-1]
        if isinstance(getattr(head, 'num_classes', None), int):
            return head
    return None


def check_dataset_classes(dataset: Any, split: str, classes: int, model: nn.Module) -> None:
    """Raise a :class:`UserError` if a dataset that is built names another number of classes than the model has."""
    meta = getattr(dataset, 'metainfo', None)
    names = meta.get('classes') if isinstance(meta, Mapping) else None
    # things and stuff are counted apart, and a model that reads the classes' names has none of its own
    if not isinstance(names, Sequence) or 'thing_classes' in (meta or {}) or hasattr(model, 'language_model'):
        return
    if len(names) != classes:
        what = f'the data of {split}_dataloader has {len(names)} classes ({some_names(names)})'
        how = f'set num_classes={len(names)}, in the config or by --cfg-options, or metainfo.classes of the dataset'
        raise UserError(f'{what}, and the model has {classes}: {how}')


class _LabelCheck:
    """What looks at each batch before it is preprocessed, and so while it is still in the memory of the CPU."""

    def __init__(self, classes: int, ignore: int):
        self.classes, self.ignore = classes, ignore

    def __call__(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        batch = args[0] if args else None
        samples = batch.get('data_samples') if isinstance(batch, Mapping) else None
        for sample in samples if isinstance(samples, (list, tuple)) else ():
            labels = getattr(sample, 'gt_label', None)
            if labels is not None:
                self._check(labels, (), getattr(sample, 'img_path', None))
            segments = getattr(getattr(sample, 'gt_sem_seg', None), 'data', None)
            if segments is not None:
                path = getattr(sample, 'seg_map_path', None) or getattr(sample, 'img_path', None)
                self._check(segments, (self.ignore,), path)

    def _check(self, labels: Any, ignored: Iterable[int], path: str | None) -> None:
        if not isinstance(labels, Tensor) or labels.device.type != 'cpu' or not labels.numel():
            return
        low, high = (int(value) for value in torch.aminmax(labels))
        if low >= 0 and high < self.classes:
            return  # nearly always
        values = [int(value) for value in torch.unique(labels)]
        if wrong := [v for v in values if not 0 <= v < self.classes and v not in ignored]:
            but = ''.join(f', or {value}, which is ignored' for value in ignored)
            named = ', '.join(map(str, wrong[:6]))
            what = f'{short(path)!r} holds the label{"s" * (len(wrong) > 1)} {named}'
            raise UserError(f'{what}: with num_classes={self.classes} labels are 0 to {self.classes - 1}{but}')
