"""Check a config's COCO annotation files before anything is built from it."""

import json
import mmap
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine import Config
from mmengine.fileio import get_local_path, isfile
from mmengine.registry import init_default_scope

from nfnet_mm.errors import UserError, nearest_files
from nfnet_mm.pack import PREFIX
from nfnet_mm.registry import type_name

from .datasets import base_names, metrics, split_datasets

COCO_KEYS = ('images', 'annotations', 'categories')
COCO_IMAGES = ('images', 'categories')  # without answers
# Parsing more than this (in bytes) only to check it would delay the start by seconds.
PARSE_LIMIT = 64 << 20
_LIST_LIMIT = 4 << 20  # of one list in a longer file


def check_coco_files(cfg: Config, splits: Sequence[str]) -> None:
    """Check the annotation files of every COCO dataset and metric of a config, before anything is built from it.

    Args:
        cfg: the config.
        splits: of 'train', 'val' and 'test', those that the run will use.

    Raises:
        UserError: a file is missing or is not COCO (see :func:`check_coco_file`).
    """
    init_default_scope(cfg.get('default_scope') or 'mmengine')
    checked = set()
    for split in splits:
        for path, keys, used_by in _coco_files(cfg, split):
            if (path, keys) not in checked:
                check_coco_file(path, keys, used_by)
                checked.add((path, keys))


def check_coco_file(path: str, needed: Sequence[str] = COCO_KEYS, used_by: str = '') -> None:
    """Raise a :class:`UserError` unless ``path`` is a JSON object with the keys of a COCO annotation file.

    A file over 64 MiB is searched for the keys and for its closing bracket rather than parsed.
    """
    holds = f'a COCO file is one JSON object with the lists {", ".join(needed)}'
    what = f'annotation file{used_by and f" of {used_by}"}'
    if not os.path.isfile(path):
        folder, names = nearest_files(path)
        hint = f' (in {str(folder)!r} there is {", ".join(repr(name) for name in names)})' if names else ''
        raise UserError(f'{what} {path!r} does not exist{hint}; {holds}')
    if os.path.getsize(path) > PARSE_LIMIT:
        with open(path, 'rb') as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
            if not text[-4096:].rstrip().endswith(b'}'):
                raise UserError(f'{what} {path!r} is cut off: it does not end in a closing bracket; {holds}')
            found = [key for key in needed if re.search(rb'"%s"\s*:\s*\[' % key.encode(), text)]
    else:
        try:
            content = json.loads(Path(path).read_text(encoding='utf-8'))
        except ValueError as error:
            raise UserError(f'{what} {path!r} is not JSON ({error}); {holds}') from error
        content = content if isinstance(content, dict) else {}
        found = [key for key in needed if isinstance(content.get(key), list)]
    if missing := [key for key in needed if key not in found]:
        raise UserError(f'{what} {path!r} is not a COCO file, it lacks {", ".join(missing)}; {holds}')


def _coco_files(cfg: Config, split: str) -> Iterator[tuple[str, tuple[str, ...], str]]:
    """(path, keys that are needed in it, key of the config) of each local file of a split's COCO data and metrics."""
    evaluators = metrics(cfg, split)
    # A test set without public answers is COCO without annotations, and can only be predicted on.
    needed = COCO_IMAGES if any(e.get('format_only') for e in evaluators) else COCO_KEYS
    users = [
        (dataset, COCO_IMAGES if _unlabelled(dataset) else needed, f'{split}_dataloader')
        for dataset in split_datasets(cfg, split)
        if not dataset.get('backend_args') and 'CocoDataset' in base_names(dataset)
    ]
    users += [
        ({'ann_file': evaluator.get('ann_file')}, needed, f'{split}_evaluator')
        for evaluator in evaluators
        if not evaluator.get('backend_args') and type_name(evaluator).endswith('CocoMetric')
    ]
    for user, keys, used_by in users:
        path = os.path.join(user.get('data_root') or '', user.get('ann_file') or '')
        if user.get('ann_file') and '://' not in path:
            yield path, keys, used_by


def _unlabelled(dataset: Mapping[str, Any]) -> bool:
    """Whether a dataset's pipeline asks for no answers, as that of semi-supervised training's unlabelled pictures."""
    return any(type_name(transform) == 'LoadEmptyAnnotations' for transform in dataset.get('pipeline') or ())


def coco_categories(path: str) -> list[str] | None:
    """The names of a COCO file's categories, in its order; None if the file or its list cannot be read.

    Of a file over 64 MiB only the list is parsed.
    """
    return category_names(coco_content(path, ('categories',)))


def category_names(content: Mapping[str, Any] | None) -> list[str] | None:
    """The names of the categories in what was read of a COCO file, in their order; None if there are none."""
    names = [category.get('name') for category in (content or {}).get('categories') or () if isinstance(category, dict)]
    return [str(name) for name in names] or None


def coco_content(path: str, large: Sequence[str] = ()) -> dict[str, Any] | None:
    """What is in a COCO file, or of one over 64 MiB only the lists named ``large``; None if it cannot be read."""
    if path.startswith(f'{PREFIX}://') and isfile(path):
        with get_local_path(path) as copy:
            return coco_content(copy, large)
    if not os.path.isfile(path):
        return None
    try:
        if os.path.getsize(path) <= PARSE_LIMIT:
            content = json.loads(Path(path).read_text(encoding='utf-8'))
            return content if isinstance(content, dict) else None
        found = {}
        with open(path, 'rb') as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
            for key in large:
                if start := re.search(rb'"%s"\s*:\s*(?=\[)' % key.encode(), text):
                    found[key] = json.JSONDecoder().raw_decode(
                        text[start.end() : start.end() + _LIST_LIMIT].decode('utf-8', 'ignore')
                    )[0]
        return found
    except ValueError:
        return None
