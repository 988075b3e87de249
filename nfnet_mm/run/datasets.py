"""What a config says of its datasets, and what is in their folders."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mmengine.fileio import exists, list_dir_or_file
from mmengine.registry import DATASETS

from nfnet_mm.pack import PREFIX
from nfnet_mm.registry import type_name

SPLITS = ('train', 'val', 'test')


def datasets(cfg: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every innermost dataset config below a dataset config (RepeatDataset, ConcatDataset and the like hold more)."""
    inner = cfg.get('datasets') or ([cfg['dataset']] if 'dataset' in cfg else None)
    if inner is not None:
        for dataset in inner if isinstance(inner, (list, tuple)) else ():
            yield from datasets(dataset) if isinstance(dataset, dict) else ()
    elif cfg:
        yield cfg


def split_datasets(cfg: Mapping[str, Any], split: str) -> list[dict[str, Any]]:
    """Every innermost dataset config of a split; none where its loader is no dict, as a loop of the user's may want."""
    dataset = loader(cfg, split).get('dataset')
    return list(datasets(dataset)) if isinstance(dataset, dict) else []


def loader(cfg: Mapping[str, Any], split: str) -> dict[str, Any]:
    """The config of a split's data loader; empty if there is none."""
    found = cfg.get(f'{split}_dataloader')
    return found if isinstance(found, dict) else {}


def metrics(cfg: Mapping[str, Any], split: str) -> list[dict[str, Any]]:
    """The configs of a split's metrics, of one, of a list or of an evaluator that holds a list."""
    found = cfg.get(f'{split}_evaluator')
    if isinstance(found, dict):
        found = found.get('metrics', found)
    return [one for one in (found if isinstance(found, (list, tuple)) else [found]) if isinstance(one, dict)]


def class_of(dataset: Mapping[str, Any]) -> type | None:
    """The class of a dataset config, of the framework of the default scope."""
    kind = dataset.get('type')
    if isinstance(kind, str):
        with DATASETS.switch_scope_and_registry(None) as registry:
            kind = registry.get(kind)
    return kind if isinstance(kind, type) else None


def base_names(dataset: Mapping[str, Any]) -> list[str]:
    """The names of a dataset's class and its bases: the classes belong to frameworks that are not imported here."""
    return [base.__name__ for base in getattr(class_of(dataset), '__mro__', ())]


def names_classes(dataset: Mapping[str, Any]) -> tuple[str, ...]:
    """The classes that a dataset's config names; none if it leaves them to the dataset's type."""
    # mmpretrain's have an argument for them, too
    classes = (dataset.get('metainfo') or {}).get('classes') or dataset.get('classes') or ()
    if isinstance(classes, str):  # a file of names, one a line
        file = os.path.expanduser(classes)
        return tuple(Path(file).read_text(encoding='utf-8').splitlines()) if os.path.isfile(file) else (classes,)
    return tuple(classes)


def is_local(dataset: Mapping[str, Any]) -> bool:
    """Whether its files are on this machine's disks."""
    places = [dataset.get('data_root'), dataset.get('ann_file')]
    return not dataset.get('backend_args') and not any('://' in str(place) for place in places)


def is_packed(dataset: Mapping[str, Any]) -> bool:
    """Whether its data folder is a pack."""
    return str(dataset.get('data_root')).startswith(f'{PREFIX}://')


def joined(dataset: Mapping[str, Any], path: str) -> str:
    """A path of a dataset's config, below its ``data_root`` unless absolute."""
    return os.path.join(dataset.get('data_root') or '', path)


def image_folder(dataset: Mapping[str, Any]) -> str:
    """Where mmpretrain's ``CustomDataset`` and ``ImageNet`` look for images."""
    prefix = dataset.get('data_prefix') or ''
    prefix = prefix.get('img_path', '') if isinstance(prefix, Mapping) else prefix
    return joined(dataset, prefix or dataset.get('split') or '')


def list_file(dataset: Mapping[str, Any]) -> str | None:
    """The file that lists images and labels, if there is one; mmpretrain's ``ImageNet`` finds it by itself."""
    if dataset.get('ann_file'):
        return joined(dataset, dataset['ann_file'])
    found = joined(dataset, os.path.join('meta', f'{dataset["split"]}.txt')) if dataset.get('split') else ''
    if not found or not type_name(dataset).startswith('ImageNet'):
        return None
    return found if (exists(found) if is_packed(dataset) else os.path.exists(found)) else None


def class_folders(dataset: Mapping[str, Any]) -> list[str]:
    """The class folders of an image folder, in the order of their labels; none if there is no such folder."""
    folder = image_folder(dataset)
    if is_packed(dataset):
        return sorted(list_dir_or_file(folder, list_file=False))
    return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir()) if os.path.isdir(folder) else []
