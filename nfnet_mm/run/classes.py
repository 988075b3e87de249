"""One setting for the number of classes of a config, and one for its data folder."""

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mmengine import Config

from nfnet_mm.errors import UserError, check_positive
from nfnet_mm.registry import type_name

from .coco_files import coco_categories
from .datasets import SPLITS, class_folders, joined, list_file, loader, metrics, names_classes, split_datasets

_MAIN = ('head', 'decode_head', 'bbox_head')  # whose number of classes is the model's
_PAIRED = 80  # colours that mmdet has for COCO's classes


def model_classes(cfg: Mapping[str, Any]) -> int | None:
    """How many classes the main head of a config's model has; None if no head states it.

    >>> model_classes(dict(model=dict(neck=dict(), head=dict(type='NFClsHead', num_classes=10))))
    10
    """
    found = [(_rank(path), place['num_classes']) for path, place in _heads(cfg.get('model') or {}, 'model')]
    return min(found, default=(0, None), key=lambda entry: entry[0])[1]


def use_num_classes(cfg: Config, options: Mapping[str, Any]) -> str | None:
    """Let ``num_classes`` of the options, or of the config's own top level, hold for all that depends on it.

    That is every head with the number of the main head (an auxiliary task's own number stays) and the losses and class
    weights in it, the mixing of images and other collate functions, data preprocessors, the metrics, and k of top-k.
    Datasets that name no classes of their own, where their type's are others, get the names that the data has: of class
    folders, of a COCO file's categories in its order; else numbers.

    Returns:
        one line that says what followed; None if all was so already.

    Raises:
        UserError: it is no positive integer, no head of the config states a number of classes that could follow, or
            class weights are given one by one.
    """
    if 'num_classes' not in options and not isinstance(cfg.get('num_classes'), int):
        return None
    number = check_positive('num_classes', cfg.num_classes)
    old, changed = model_classes(cfg), []
    if old is None:
        if 'num_classes' not in options:
            return None  # a config's own variable
        what = f'--cfg-options num_classes={number}: no head of this config states num_classes'
        raise UserError(f'{what}, so none can follow: set what its heads take, by dotted key')
    places = [place for place in _heads(cfg.model, 'model') if place[1]['num_classes'] in (old, number)]
    places += [(key, cfg[key]) for key in ('data_preprocessor',) if 'num_classes' in (cfg.get(key) or {})]
    for split in SPLITS:
        collate = loader(cfg, split).get('collate_fn')
        if isinstance(collate, dict) and 'num_classes' in collate:
            places.append((f'{split}_dataloader.collate_fn', collate))
        places += [(f'{split}_evaluator', metric) for metric in metrics(cfg, split)]
    for path, place in places:
        changed += _set(place, path, old, number)
    for split in SPLITS:
        for dataset in split_datasets(cfg, split):
            if names := _name_classes(dataset, split, number):
                changed.append(f'classes of {split}_dataloader ({some_names(names)})')
    return f'num_classes={number} (was {old}): {", ".join(dict.fromkeys(changed))}' if changed else None


def use_data_root(cfg: Config, root: str) -> None:
    """Point every dataset of a config, and the annotation files of its metrics, at another data folder.

    The folder is replaced at the start of the metrics' paths, as the datasets' ``data_root`` names it in the file.
    """
    root = os.path.join(root, '')
    for split in SPLITS:
        for dataset in split_datasets(cfg, split):
            old = os.path.join(dataset.get('data_root') or '', '')
            dataset['data_root'] = root
            for metric in metrics(cfg, split):
                if old and str(metric.get('ann_file')).startswith(old):
                    metric['ann_file'] = root + metric['ann_file'][len(old) :]
    cfg.data_root = root


def data_root(cfg: Mapping[str, Any]) -> str | None:
    """The data folder of a config's datasets; None if they have none or several."""
    roots = {
        str(dataset['data_root'])
        for split in SPLITS
        for dataset in split_datasets(cfg, split)
        if dataset.get('data_root')
    }
    return min(roots) if len(roots) == 1 else None


def follow_data_root(cfg: Config) -> None:
    """Let the config's ``data_root`` hold for its datasets, where they all have one other folder, as inherited ones."""
    root, old = cfg.get('data_root'), data_root(cfg)
    if isinstance(root, str) and old is not None and os.path.join(root, '') != os.path.join(old, ''):
        use_data_root(cfg, root)


def some_names(names: Sequence[str]) -> str:
    """The first of some class names in their order.

    >>> some_names(['cat', 'dog', 'cow', 'hen', 'pig'])
    'cat, dog, cow and 2 more'
    """
    return ', '.join(names[:3]) + (f' and {len(names) - 3} more' if len(names) > 3 else '')


def _heads(node: Any, path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every outermost dict below ``node`` that states ``num_classes``; a proposal network's number is none of them."""
    if isinstance(node, Mapping):
        if isinstance(node.get('num_classes'), int):
            yield path, node  # type: ignore[misc]
        else:
            for key, value in node.items():
                if key != 'rpn_head':
                    yield from _heads(value, f'{path}.{key}')
    elif isinstance(node, (list, tuple)):
        for i, value in enumerate(node):
            yield from _heads(value, f'{path}.{i}')


def _rank(path: str) -> int:
    parts = path.split('.')
    return next((i for i, name in enumerate(_MAIN) if name in parts), len(_MAIN))


def _set(place: dict[str, Any], path: str, old: int, number: int) -> list[str]:
    """Set the number in a dict and in those below it; the paths of what changed."""
    changed = []
    if isinstance(place.get('num_classes'), int) and place['num_classes'] != number:
        place['num_classes'] = number
        changed.append(path)
    ks = place.get('topk') if path.endswith('_evaluator') or path == 'model.head' else None  # others are of boxes
    if ks is not None and any(k > number for k in ([ks] if isinstance(ks, int) else ks)):
        place['topk'] = tuple(k for k in ([ks] if isinstance(ks, int) else ks) if k <= number) or (1,)
        changed.append(f'{path}.topk={place["topk"]}')
    weights = place.get('class_weight')
    if isinstance(weights, (list, tuple)) and old != number and len(weights) in (old, old + 1):
        if len(set(weights[:old])) > 1:
            what = f'{path}.class_weight has {len(weights)} weights, one for each of {old} classes'
            raise UserError(f'{what}: with num_classes={number} state {number + len(weights) - old} of them there')
        place['class_weight'] = [weights[0]] * number + list(weights[old:])
        changed.append(f'{path}.class_weight')
    for key, value in place.items():
        for i, inner in enumerate(value if isinstance(value, (list, tuple)) else [value]):
            if isinstance(inner, dict):
                below = f'{path}.{key}.{i}' if isinstance(value, (list, tuple)) else f'{path}.{key}'
                changed += _set(inner, below, old, number)
    return changed


def _name_classes(dataset: dict[str, Any], split: str, number: int) -> list[str] | None:
    """Give a dataset that names no classes those of its data; None if it keeps what it has.

    What does not have ``number`` classes is left, for :func:`~.data.check_data` to say so.
    """
    kind, names = type_name(dataset), None
    if names_classes(dataset):
        return None
    if kind == 'CocoDataset' and not dataset.get('backend_args'):
        names = coco_categories(joined(dataset, dataset.get('ann_file') or ''))
    elif kind == 'ImageNet' and number != 1000:
        listed = list_file(dataset) is not None
        names = [str(i) for i in range(number)] if listed else class_folders(dataset)
    elif kind == 'BaseSegDataset' or (kind == 'PascalVOCDataset' and number != 21):
        dataset['type'] = 'BaseSegDataset'  # the same folders and suffixes, without VOC's names
        names = [str(i) for i in range(number)]
    if not names or len(names) != number:
        return None
    dataset['metainfo'] = dict(dataset.get('metainfo') or {}, classes=tuple(names))
    if kind == 'CocoDataset' and number > _PAIRED:
        dataset['metainfo']['palette'] = 'random'
    return names
