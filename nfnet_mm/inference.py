"""Predictions of any config's model on pictures: what it saw drawn on them, and the same for programs as JSON.

On top of the frameworks' own inferencers, which are found by the config's scope.
"""

import glob
import inspect
import json
import os
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from mmengine import Config
from mmengine.dataset import Compose, default_collate
from mmengine.device import get_device
from mmengine.registry import init_default_scope

from .converters.formats.read import read_weights
from .converters.hub import local_file
from .converters.recognise import is_run_checkpoint
from .engine.strict_load import mismatches
from .errors import UserError, check_number, write_atomically
from .run.public_weights import read_public_weights

SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp')  # of the files that are taken from a folder
_INFERENCERS = dict(mmdet='DetInferencer', mmseg='MMSegInferencer', mmpretrain='ImageClassificationInferencer')


def find_images(names: Sequence[str]) -> list[Path]:
    """The files of names: each a file, a folder (all images below it) or a pattern such as ``'photos/*.jpg'``.

    Raises:
        UserError: a name that stands for no file.
    """
    found: dict[Path, None] = {}
    for name in names:
        path = Path(name)
        if path.is_dir():
            some = sorted(one for one in path.rglob('*') if one.suffix.lower() in SUFFIXES)
            what = f'folder {name!r} holds no image ({", ".join(SUFFIXES)})'
        elif path.is_file():
            some, what = [path], ''
        else:
            some = [one for one in map(Path, sorted(glob.glob(name, recursive=True))) if one.is_file()]
            what = f'no file matches {name!r}'
        if not some:
            raise UserError(what)
        found.update(dict.fromkeys(some))
    return list(found)


def make_folder(path: str) -> Path:
    """A folder that results can be written to, made if it is not there.

    Raises:
        UserError: it cannot be made or written.
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f'output folder {path!r} cannot be made: {error.strerror or error}') from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(f'output folder {path!r} cannot be written')
    return folder


class Predictor:
    """A model that predicts pictures one by one.

    Args:
        cfg: a config of mmdet, mmseg (depth too) or mmpretrain.
        checkpoint: file of the model's weights; nothing in it is run.
        device: 'cpu', 'cuda', ...; by default the accelerator if there is one.
        score_threshold: objects of lower scores are left out; detectors only.

    Raises:
        UserError: the config is of another framework, or the checkpoint is not its model's, whole.
    """

    def __init__(self, cfg: Config, checkpoint: str, device: str | None = None, score_threshold: float = 0.3):
        scope = cfg.get('default_scope')
        if scope not in _INFERENCERS:
            what = f"the config's default_scope is {scope!r}, which has no inferencer known here"
            raise UserError(f'{what}: known are {", ".join(_INFERENCERS)}')
        self.scope = scope
        self.threshold = check_number('score_threshold', score_threshold, '[0, 1]')
        content = _read(cfg, local_file(checkpoint, 'checkpoint'))
        init_default_scope(scope)
        kind = getattr(import_module(f'{scope}.apis'), _INFERENCERS[scope])  # no registry has it
        options: dict[str, Any] = dict(pretrained=False) if scope == 'mmpretrain' else dict(scope=scope)
        if 'show_progress' in inspect.signature(kind).parameters:  # not in mmsegmentation 1.2
            options['show_progress'] = False
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # that weights are missing, which are loaded next
            self.inferencer = kind(_without_initial_weights(cfg), device=device or get_device(), **options)
        # mmpretrain's reads every picture in colour, whatever the config's pipeline says
        self.load = Compose(cfg.test_dataloader.dataset.pipeline) if scope == 'mmpretrain' else None
        model = self.inferencer.model
        wrong, left_over, _ = mismatches(model, content)
        if wrong or left_over:
            raise UserError(f'checkpoint {checkpoint!r} is not of this model: {"; ".join(wrong + left_over)}')
        told = content['meta'].get('dataset_meta')
        self.classes: tuple[str, ...] = tuple((told or {}).get('classes') or _classes_of(cfg))
        if self.classes or told:
            meta = {**(getattr(model, 'dataset_meta', None) or {}), **(told or {}), 'classes': self.classes}
            if scope == 'mmseg':  # its visualizer takes nothing else, such as the label_map of its data sets
                meta = {key: meta.get(key) for key in ('classes', 'palette')}
                if len(meta['palette'] or ()) != len(self.classes):
                    meta['palette'] = np.random.default_rng(0).integers(0, 256, (len(self.classes), 3)).tolist()
            if scope == 'mmpretrain':
                self.inferencer.classes = self.classes or None
            else:
                model.dataset_meta = meta
            if scope == 'mmdet':
                self.inferencer.visualizer.dataset_meta = meta

    def __call__(self, path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Predict one picture.

        Returns:
            what JSON can hold; and {suffix of a file's name: array to write as PNG}, in OpenCV's order of channels.
        """
        inferencer = self.inferencer
        if self.load is not None:
            data = default_collate([self.load(dict(img_path=str(path)))])
        else:
            (data,) = inferencer.preprocess([str(path)], batch_size=1)
        if self.scope == 'mmdet':
            data = data[1]  # beside the picture as it was
        (sample,) = inferencer.forward(data)
        if self.scope == 'mmpretrain':
            return self._classified(path, sample)
        options = dict(no_save_vis=True, pred_score_thr=self.threshold) if self.scope == 'mmdet' else {}
        picture = inferencer.visualize([str(path)], [sample], return_vis=True, **options)[0]
        if self.scope == 'mmdet':
            return self._detected(sample), {'': picture[..., ::-1]}
        return self._depth(sample, picture) if 'pred_depth_map' in sample else self._segmented(sample, picture)

    def _name(self, label: int) -> str | None:
        return self.classes[label] if label < len(self.classes) else None

    def _classified(self, path: Path, sample: Any) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        scores = sample.pred_score.detach().cpu()
        best = [(i, float(scores[i])) for i in scores.argsort(descending=True)[:5].tolist()]
        import cv2

        picture: Any = cv2.imread(str(path))
        line = ', '.join(f'{self._name(i) or i} {score:.2f}' for i, score in best[:1])
        size = max(0.4, picture.shape[1] / 600)
        for colour, thickness in (((0, 0, 0), 4), ((255, 255, 255), 1)):
            at = (5, int(25 * size))
            cv2.putText(picture, line, at, cv2.FONT_HERSHEY_SIMPLEX, size, colour, max(1, int(thickness * size)))
        return dict(top=[dict(label=i, name=self._name(i), score=score) for i, score in best]), {'': picture}

    def _detected(self, sample: Any) -> dict[str, Any]:
        found = self.inferencer.pred2dict(sample)
        objects = []
        for i, (label, score) in enumerate(zip(found.get('labels', ()), found.get('scores', ()))):
            if score >= self.threshold:
                more = dict(mask=found['masks'][i]) if 'masks' in found else {}  # run lengths, as COCO's
                objects.append(dict(label=label, name=self._name(label), score=score, box=found['bboxes'][i], **more))
        return dict(objects=objects)

    def _segmented(self, sample: Any, picture: np.ndarray) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        labels = sample.pred_sem_seg.data[0].cpu().numpy()
        kind = np.uint8 if labels.max() < 256 else np.uint16
        values, counts = np.unique(labels, return_counts=True)
        shares = [
            dict(label=int(one), name=self._name(int(one)), share=float(count / labels.size))
            for one, count in zip(values, counts)
        ]
        return dict(classes=shares), {'': picture[..., ::-1], '_labels': labels.astype(kind)}

    def _depth(self, sample: Any, picture: np.ndarray) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        metres = sample.pred_depth_map.data[0].cpu().numpy()
        figures = {name: float(getattr(metres, name)()) for name in ('min', 'mean', 'max')}
        millimetres = (metres * 1000).round().clip(0, 65535).astype(np.uint16)
        return dict(depth_in_metres=figures), {'': picture[..., ::-1], '_depth_mm': millimetres}


def _read(cfg: Config, path: str) -> dict[str, Any]:
    """The weights of a run's checkpoint, or of a file of public ones, and what is told of them."""
    if not is_run_checkpoint(path):
        return read_public_weights(cfg, path)
    weights = read_weights(path)
    return dict(state_dict=weights.state_dict or {}, meta=weights.meta)


def _without_initial_weights(cfg: Config) -> Config:
    """A copy whose backbone is not read from a file first: all of the model comes from the checkpoint."""
    cfg = Config(cfg.to_dict())
    backbone = cfg.model.get('backbone')
    if isinstance(backbone, dict):
        backbone.pop('init_cfg', None)
    return cfg


def _classes_of(cfg: Config) -> Iterable[str]:
    """The class names that a config's test data states."""
    dataset = (cfg.get('test_dataloader') or {}).get('dataset') or {}
    return (dataset.get('metainfo') or {}).get('classes') or ()


def predict(predictor: Predictor, images: Sequence[Path], folder: Path) -> Iterator[tuple[Path, Path | None]]:
    """Predict pictures into a folder: for each ``<name>.png``, ``<name>.json`` and, of maps, ``<name>_<map>.png``.

    Yields:
        the picture, and the JSON file that was written, or None if the picture cannot be read.
    """
    import cv2

    used = {path.resolve() for path in images}  # a picture is not written over, in a folder that holds both
    for path in images:
        if cv2.imread(str(path)) is None:
            yield path, None
            continue
        told, arrays = predictor(path)
        name, count = path.stem, 1
        while not used.isdisjoint(targets := _targets(folder, name, arrays)):  # of another folder, or suffix
            count += 1
            name = f'{path.stem}_{count}'
        used |= targets
        files = {}
        for suffix, array in arrays.items():
            target = folder / f'{name}{suffix}.png'
            png = cv2.imencode('.png', np.ascontiguousarray(array))[1].tobytes()
            write_atomically(target, partial(_write, content=png))
            files[suffix.strip('_') or 'picture'] = target.name
        text = json.dumps(dict(image=str(path), files=files, **told), indent=1, default=_plain).encode()
        target = folder / f'{name}.json'
        write_atomically(target, partial(_write, content=text))
        yield path, target


def _targets(folder: Path, name: str, suffixes: Iterable[str]) -> set[Path]:
    """The files to write of a picture."""
    return {(folder / file).resolve() for file in (f'{name}.json', *(f'{name}{suffix}.png' for suffix in suffixes))}


def _write(file: BinaryIO, content: bytes) -> None:
    file.write(content)


def _plain(value: Any) -> Any:
    return value.decode() if isinstance(value, bytes) else value.tolist()


def run(
    cfg: Config, checkpoint: str, images: Sequence[str], out: str, device: str | None, score_threshold: float
) -> int:
    """Find the pictures, predict them, say what was written.

    Returns:
        how many pictures were predicted.

    Raises:
        UserError: nothing to do, nothing that can be read, or nowhere to write.
    """
    paths, folder = find_images(images), make_folder(out)
    predictor = Predictor(cfg, checkpoint, device, score_threshold)
    done = 0
    for path, target in predict(predictor, paths, folder):
        if target is None:
            print(f'skipped: {str(path)!r} is no image that can be read', file=sys.stderr, flush=True)
        done += target is not None
    if not done:
        raise UserError(f'none of the {len(paths)} files can be read as an image')
    skipped = f', {len(paths) - done} skipped' if done < len(paths) else ''
    print(f'{done} image{"s" * (done != 1)} predicted{skipped}: pictures and JSON in {out}')
    return done
