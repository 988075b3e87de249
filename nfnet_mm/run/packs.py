"""Let a config's data come from packs: a ``data_root`` that ends in ``.tar`` is one."""

import os
import tempfile
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

from mmengine import Config
from mmengine.fileio import get_file_backend
from mmengine.registry import init_default_scope

from nfnet_mm.errors import UserError, check_exists, some
from nfnet_mm.pack import PREFIX, SUFFIX, address

from .datasets import SPLITS, base_names, is_packed, joined, metrics, split_datasets


def use_packs(cfg: Config) -> None:
    """Address the packs among the data folders of a config's datasets, and of the files of its metrics.

    mmseg's datasets look for their list of images on the disk alone: they get a copy of the one that is packed.

    Raises:
        UserError: there is no such pack, or it is none.
    """
    roots = {
        str(dataset['data_root'])
        for split in SPLITS
        for dataset in split_datasets(cfg, split)
        if '://' not in str(dataset.get('data_root')) and str(dataset.get('data_root')).rstrip('/').endswith(SUFFIX)
    }
    packs = {root: address(root) for root in roots if not os.path.isdir(root)}
    for root in packs:
        check_exists(root.rstrip('/'), 'pack')
    for split in SPLITS:
        for metric in metrics(cfg, split):
            for root, packed in packs.items():
                start = os.path.join(root, '')
                if str(metric.get('ann_file')).startswith(start):
                    metric['ann_file'] = packed + metric['ann_file'][len(start) :]
        for dataset in split_datasets(cfg, split):
            if dataset.get('data_root') in packs:
                dataset['data_root'] = packs[dataset['data_root']]
            if is_packed(dataset) and dataset.get('ann_file'):
                init_default_scope(cfg.get('default_scope') or 'mmengine')
                if 'BaseSegDataset' in base_names(dataset):
                    dataset['ann_file'] = _copied(joined(dataset, dataset['ann_file']))
    if cfg.get('data_root') in packs:
        cfg.data_root = packs[cfg.data_root]


def check_packs(cfg: Mapping[str, Any], splits: Sequence[str]) -> None:
    """Hold the packs of a config's datasets against the folders and lists that are read from them.

    Raises:
        UserError: one has no such folder or file; the line tells what it has.
    """
    for split in splits:
        for dataset in filter(is_packed, split_datasets(cfg, split)):
            prefix = dataset.get('data_prefix') or dataset.get('split') or ''
            folders = list(prefix.values()) if isinstance(prefix, Mapping) else [prefix]
            for kind, paths in (('folder', folders), ('file', [dataset.get('ann_file')])):
                for path in filter(None, paths):
                    _check(dataset['data_root'], kind, path, f'{split}_dataloader')


def _check(root: str, kind: str, path: str, used_by: str) -> None:
    backend = get_file_backend(root)
    place = os.path.join(root, path)
    if '://' in path or os.path.isabs(path) or (backend.isdir if kind == 'folder' else backend.isfile)(place):
        return
    there = some(backend.list_dir_or_file(root))
    raise UserError(f'{used_by}: the {kind} {path!r} is not in the pack {root!r}, which holds {there}')


def _copied(place: str) -> str:
    """A copy on the disk of a file in a pack, by a name that follows from its content; what has no file is left."""
    backend = get_file_backend(place)
    if not place.startswith(f'{PREFIX}://') or not backend.isfile(place):
        return place
    content = backend.get(place)
    folder = os.path.join(tempfile.gettempdir(), f'nfnet_mm-{os.getuid()}')
    os.makedirs(folder, mode=0o700, exist_ok=True)
    copy = os.path.join(folder, f'{zlib.crc32(content):08x}-{len(content)}-{os.path.basename(place)}')
    with tempfile.NamedTemporaryFile(dir=folder, delete=False) as file:
        file.write(content)
    os.replace(file.name, copy)  # of several processes the last one's, with the same content
    return copy
