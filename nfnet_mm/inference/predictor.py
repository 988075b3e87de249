"""A model of any config of the frameworks, which predicts pictures.

On top of the frameworks' own inferencers, which are found by the config's scope.
"""

import inspect
import warnings
from collections.abc import Iterable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from mmengine import Config
from mmengine.dataset import Compose, default_collate
from mmengine.registry import init_default_scope

from nfnet_mm.dependencies import require
from nfnet_mm.deploy import fold, is_standardised
from nfnet_mm.deploy.export.outputs import stride_of
from nfnet_mm.engine.folded_checkpoint import is_folded
from nfnet_mm.errors import UserError, check_number
from nfnet_mm.run.device import usable_device
from nfnet_mm.run.trained import fill, read_trained, without_initial_weights

from .drawing import draw_depth, palette_png, png, write_line

_INFERENCERS = dict(mmdet='DetInferencer', mmseg='MMSegInferencer', mmpretrain='ImageClassificationInferencer')


class Prediction(NamedTuple):
    """What was found in a picture.

    Attributes:
        told: what JSON can hold.
        drawn: (H, W, 3) uint8 in OpenCV's order of channels.
        maps: by name, PNG files for programs.
    """

    told: dict[str, Any]
    drawn: np.ndarray
    maps: dict[str, bytes] = {}


class Predictor:
    """A model that predicts pictures, with standardised convs folded into plain ones.

    Args:
        cfg: a config of mmdet, mmseg (depth too) or mmpretrain.
        checkpoint: file of the model's weights; nothing in it is run.
        device: 'cpu', 'cuda', ...; by default the accelerator if there is one.
        score_threshold: objects of lower scores are left out; detectors only.

    Raises:
        UserError: the config is of another framework or one that is not installed, the device cannot be used, or the
            checkpoint is not of the config's model, whole.
    """

    def __init__(self, cfg: Config, checkpoint: str, device: str | None = None, score_threshold: float = 0.3):
        scope = cfg.get('default_scope')
        if scope not in _INFERENCERS:
            what = f"the config's default_scope is {scope!r}, which has no inferencer known here"
            raise UserError(f'{what}: known are {", ".join(_INFERENCERS)}')
        self.scope = scope
        self.threshold = check_number('score_threshold', score_threshold, '[0, 1]')
        self.device = usable_device(device)
        try:
            require(scope)
        except ImportError as error:
            raise UserError(' '.join(str(error).split())) from None
        content = read_trained(cfg, checkpoint)
        init_default_scope(scope)
        kind = getattr(import_module(f'{scope}.apis'), _INFERENCERS[scope])  # no registry has it
        options: dict[str, Any] = dict(pretrained=False) if scope == 'mmpretrain' else dict(scope=scope)
        if 'show_progress' in inspect.signature(kind).parameters:  # not in mmsegmentation 1.2
            options['show_progress'] = False
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # that weights are missing, which are loaded next
            self.inferencer = kind(without_initial_weights(cfg), device=self.device, **options)
        # mmpretrain's reads every picture in colour, whatever the config's pipeline says
        self.pipeline = Compose(cfg.test_dataloader.dataset.pipeline) if scope == 'mmpretrain' else None
        self.meta: dict[str, Any] = content['meta']
        model: Any = fill(self.inferencer.model, content, checkpoint)
        standardised = is_standardised(model)
        model = self.inferencer.model = fold(model) if standardised else model
        self.folded, self.stride = standardised or is_folded(content), stride_of(model)
        told = self.meta.get('dataset_meta')
        self.classes: tuple[str, ...] = tuple((told or {}).get('classes') or _classes_of(cfg))
        if self.classes or told:
            meta = {**(getattr(model, 'dataset_meta', None) or {}), **(told or {}), 'classes': self.classes}
            if scope == 'mmseg':  # its visualizer takes nothing else, such as the label_map of its data sets
                meta = {key: meta.get(key) for key in ('classes', 'palette')}
                if len(meta['palette'] or ()) != len(self.classes):
                    meta['palette'] = _some_colours(len(self.classes))
            if scope == 'mmpretrain':
                self.inferencer.classes = self.classes or None
            else:
                model.dataset_meta = meta
            if scope == 'mmdet':
                self.inferencer.visualizer.dataset_meta = meta

    def prepare(self, picture: Path | np.ndarray) -> dict[str, Any]:
        """A picture's file, or (H, W, 3) uint8 in OpenCV's order of channels, as the config's pipeline makes it."""
        given: Any = str(picture) if isinstance(picture, Path) else picture
        if self.pipeline is None:
            return self.inferencer.pipeline(given)
        if isinstance(picture, Path):
            return self.pipeline(dict(img_path=given))
        loader, *others = self.pipeline.transforms
        if getattr(loader, 'color_type', 'color') == 'grayscale':
            import cv2

            given = cv2.cvtColor(given, cv2.COLOR_BGR2GRAY)
        data: Any = dict(img=given, img_shape=given.shape[:2], ori_shape=given.shape[:2], img_path='')
        for transform in others:
            data = transform(data)
        return data

    def forward(self, batch: Sequence[dict[str, Any]]) -> list[Any]:
        """The framework's data samples of prepared pictures.

        Raises:
            UserError: they do not fit into the GPU's memory.
        """
        collate = default_collate if self.pipeline is not None else self.inferencer.collate_fn
        try:
            return self.inferencer.forward(collate(batch))
        except torch.cuda.OutOfMemoryError:
            what = f'{len(batch)} picture{"s" * (len(batch) > 1)} of {tuple(batch[0]["inputs"].shape)}'
            raise UserError(f'{what} do not fit into the memory of {self.device}: try a smaller --batch-size') from None

    def read(self, picture: np.ndarray, sample: Any) -> Prediction:
        """What a data sample says of a picture, (H, W, 3) uint8 in OpenCV's order of channels."""
        if self.scope == 'mmpretrain':
            return self._classified(picture, sample)
        if 'pred_depth_map' in sample:
            return self._depth(picture, sample)
        options = dict(no_save_vis=True, pred_score_thr=self.threshold) if self.scope == 'mmdet' else {}
        rgb = np.ascontiguousarray(picture[..., ::-1])
        drawn = self.inferencer.visualize([rgb], [sample], return_vis=True, **options)[0][..., ::-1]
        return (self._detected if self.scope == 'mmdet' else self._segmented)(drawn, sample)

    def __call__(self, pictures: Sequence[np.ndarray]) -> list[Prediction]:
        """Predict pictures of one size, each (H, W, 3) uint8 in OpenCV's order of channels, at once."""
        return [*map(self.read, pictures, self.forward([*map(self.prepare, pictures)]))]

    def _name(self, label: int) -> str | None:
        return self.classes[label] if label < len(self.classes) else None

    def _classified(self, picture: np.ndarray, sample: Any) -> Prediction:
        scores = sample.pred_score.detach().cpu()
        best = [(i, float(scores[i])) for i in scores.argsort(descending=True)[:5].tolist()]
        line = ', '.join(f'{self._name(i) or i} {score:.2f}' for i, score in best[:1])
        top = [dict(label=i, name=self._name(i), score=score) for i, score in best]
        return Prediction(dict(top=top), write_line(picture, line))

    def _detected(self, drawn: np.ndarray, sample: Any) -> Prediction:
        found = self.inferencer.pred2dict(sample)
        objects = []
        for i, (label, score) in enumerate(zip(found.get('labels', ()), found.get('scores', ()))):
            if score >= self.threshold:
                more = dict(mask=found['masks'][i]) if 'masks' in found else {}  # run lengths, as COCO's
                objects.append(dict(label=label, name=self._name(label), score=score, box=found['bboxes'][i], **more))
        return Prediction(dict(objects=objects), drawn)

    def _segmented(self, drawn: np.ndarray, sample: Any) -> Prediction:
        labels = sample.pred_sem_seg.data[0].cpu().numpy()
        values, counts = np.unique(labels, return_counts=True)
        shares = [
            dict(label=int(one), name=self._name(int(one)), share=float(count / labels.size))
            for one, count in zip(values, counts)
        ]
        palette = (getattr(self.inferencer.model, 'dataset_meta', None) or {}).get('palette') or _some_colours(256)
        return Prediction(dict(classes=shares), drawn, dict(labels=palette_png(labels, palette)))

    def _depth(self, picture: np.ndarray, sample: Any) -> Prediction:
        metres = sample.pred_depth_map.data[0].cpu().numpy()
        figures = {name: float(getattr(metres, name)()) for name in ('min', 'mean', 'max')}
        millimetres = (metres * 1000).round().clip(0, 65535).astype(np.uint16)
        return Prediction(dict(depth_in_metres=figures), draw_depth(picture, metres), dict(depth_mm=png(millimetres)))


def _classes_of(cfg: Config) -> Iterable[str]:
    """The class names that a config's test data states."""
    dataset = (cfg.get('test_dataloader') or {}).get('dataset') or {}
    return (dataset.get('metainfo') or {}).get('classes') or ()


def _some_colours(count: int) -> list[list[int]]:
    """RGB colours of classes for which none are told, always the same."""
    return np.random.default_rng(0).integers(0, 256, (count, 3)).tolist()
