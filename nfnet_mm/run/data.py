"""Hold a config's data against its classes before anything is built: folders, class folders, lists, COCO categories."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from mmengine import Config
from mmengine.fileio import get_local_path, list_dir_or_file
from mmengine.registry import init_default_scope

from nfnet_mm.errors import UserError, did_you_mean, nearest_files, some
from nfnet_mm.pack import PREFIX
from nfnet_mm.registry import type_name

from .classes import model_classes, some_names
from .coco_files import PARSE_LIMIT, category_names, check_coco_files, coco_content
from .datasets import (
    base_names,
    class_folders,
    class_of,
    image_folder,
    is_local,
    is_packed,
    joined,
    list_file,
    names_classes,
    split_datasets,
)
from .packs import check_packs

_IMAGES = ('.jpg', '.jpeg', '.png', '.ppm', '.bmp', '.pgm', '.tif')
# Types of datasets that read folders, by a base of theirs, and the page that tells how to lay out one's own.
_PAGES = {
    'CustomDataset': 'docs/own_data_classification.md',
    'CocoDataset': 'docs/own_data_detection.md',
    'NYUDataset': 'docs/depth.md',
    'BaseSegDataset': 'docs/own_data_segmentation.md',
}
# An installed package has no pages.
_LAYOUTS = {
    'docs/own_data_classification.md': 'train/CLASS/*.jpg, val/CLASS/*.jpg',
    'docs/own_data_detection.md': 'annotations/train.json and val.json, train/*.jpg, val/*.jpg',
    'docs/own_data_segmentation.md': 'images/train/*.jpg, annotations/train/*.png, the same for val',
}


def check_data(cfg: Config, splits: Sequence[str]) -> None:
    """Check a config's local data against its classes, before anything is built from it.

    Folders and lists must exist; class folders must be as many as the model's classes, the same in every split, and
    those that are trained on not empty; labels in lists must be classes; COCO files must be such, and their categories
    what the datasets name; and so in packs. Images are not opened. Datasets of other types, or on other machines, are
    left alone.

    Args:
        cfg: the config.
        splits: of 'train', 'val' and 'test', those that the run will use.

    Raises:
        UserError: something is not as it should be; one line that names the file or folder and what would be right.
    """
    init_default_scope(cfg.get('default_scope') or 'mmengine')
    check_packs(cfg, splits)
    used = []
    for split in splits:
        data = [one for one in split_datasets(cfg, split) if is_local(one) or is_packed(one)]
        used += [(split, one, base_names(one)) for one in data]
        kinds = [(one, base_names(one)) for one in data if not is_packed(one)]
        for one, bases in kinds:
            _check_folders(one, bases, f'{split}_dataloader.dataset', whole=True)
        check_coco_files(cfg, (split,))
        for one, bases in kinds:
            _check_folders(one, bases, f'{split}_dataloader.dataset', whole=False)
    classes = model_classes(cfg)
    folders: dict[str, list[str]] = {}
    for split, dataset, bases in used:
        if _reads_class_folders(dataset, bases) and dataset.get('with_label', True) and dataset.get('split') != 'test':
            listed = list_file(dataset)
            if listed:
                _check_list(listed, classes)
            else:
                _check_class_folders(dataset, split, classes, folders)
        elif 'CocoDataset' in bases and dataset.get('ann_file') and _reads_as_coco(dataset):
            _check_categories(dataset, split, classes)
            _check_order(dataset, cfg)
        elif type_name(dataset) == 'BaseSegDataset' and not dataset.get('ann_file'):
            _check_maps(dataset, split)


def _check_folders(dataset: Mapping[str, Any], bases: Sequence[str], key: str, whole: bool) -> None:
    """Raise if the data folder is missing; or, unless ``whole``, a folder of images or answers in it or a list."""
    page = next((page for base, page in _PAGES.items() if base in bases), None)
    if page is None:
        return
    if whole:
        root = dataset.get('data_root')
        if root and not os.path.isdir(root):
            _missing('data folder', root, f'{key}.data_root', page)
        return
    prefix = dataset.get('data_prefix') or dataset.get('split') or {}
    places: dict[str, str] = {}
    if isinstance(prefix, Mapping):
        places = {f'data_prefix.{name}': joined(dataset, path) for name, path in prefix.items() if path}
    elif prefix:
        places = {'data_prefix' if dataset.get('data_prefix') else 'split': joined(dataset, prefix)}
    for name, folder in places.items():
        if not os.path.isdir(folder) and not _begins_names(folder):
            _missing('data folder', folder, f'{key}.{name}', page)
    listed = joined(dataset, dataset.get('ann_file') or '')
    if dataset.get('ann_file') and not os.path.exists(listed) and not listed.endswith('.json'):
        _missing('list of images', listed, f'{key}.ann_file', page)


def _begins_names(path: str) -> bool:
    """Whether a path that is no folder is the beginning of files' names, as a prefix may be."""
    folder, start = os.path.split(path)
    return bool(start) and os.path.isdir(folder or '.') and any(n.startswith(start) for n in os.listdir(folder or '.'))


def _missing(what: str, path: str, key: str, page: str) -> None:
    whole = os.path.abspath(path)
    folder, names = nearest_files(whole)
    there = sorted(name for name in os.listdir(folder) if (folder / name).is_dir() and not name.startswith('.'))
    near = some(there if len(there) <= 6 or not names else names) or 'no folder'
    near = f' (in {str(folder)!r} there is {near})' if os.path.dirname(whole) == str(folder) or names else ''
    start = '' if os.path.isabs(path) else f', seen from {os.getcwd()!r}'
    root = ', or the whole folder by data_root=FOLDER' if key.startswith(('train', 'val', 'test')) else ''
    layout = f' ({_LAYOUTS[page]})' if page in _LAYOUTS else ''
    end = f'{page} tells how to lay out your own{layout}'
    raise UserError(f'{what} {path!r} does not exist{start}{near}: set {key}{root}; {end}')


def _check_class_folders(
    dataset: Mapping[str, Any], split: str, classes: int | None, seen: dict[str, list[str]]
) -> None:
    """Raise unless there is a class folder for each class, with images in it, and the same for every split."""
    folder, found = image_folder(dataset), class_folders(dataset)
    page = _PAGES['CustomDataset']
    if not found:
        raise UserError(f'{folder!r} holds no class folders, and no ann_file lists its images and labels: see {page}')
    for name in found if split == 'train' else ():
        if not any(
            file.lower().endswith(tuple(dataset.get('extensions') or _IMAGES))
            for file in _files(os.path.join(folder, name))
        ):
            what = f'class folder {os.path.join(folder, name)!r} holds no image ({", ".join(_IMAGES)})'
            raise UserError(f'{what}: put some in, or remove the folder, which would be a class')
    if classes is not None and len(found) != classes:
        what = f'{folder!r} holds {len(found)} class folders ({some_names(found)}), and the model has {classes} classes'
        raise UserError(f'{what}: set num_classes={len(found)}, in the config or by --cfg-options')
    for other, names in seen.items():
        if names != found:
            odd = set(names) ^ set(found)
            raise UserError(
                f'{folder!r} and {other!r} hold different class folders ({some(odd)} in one of them), so that labels '
                'would not mean the same: an empty folder will do where there is no image of a class'
            )
    seen[folder] = found


def _check_list(path: str, classes: int | None) -> None:
    """Raise unless each line of a list of images ends in a label that is one of the classes."""
    with get_local_path(path) as copy, open(copy, encoding='utf-8') as file:
        if os.path.getsize(copy) > PARSE_LIMIT:
            return  # seconds; labels are checked as they pass, too
        for number, line in enumerate(file, 1):
            label = line.rstrip().rpartition(' ')[2]
            if not label.isdigit() or (classes is not None and int(label) >= classes):
                many = '' if classes is None else f' from 0 to {classes - 1}, as num_classes={classes}'
                what = f'line {number} of {path!r}, {line.strip()!r}, ends in the label {label!r}'
                raise UserError(f'{what}: a line is the path of an image, a space and its label{many}')


def _reads_class_folders(dataset: Mapping[str, Any], bases: Sequence[str]) -> bool:
    """Whether a dataset finds images and labels as mmpretrain's ``CustomDataset`` does, not by a method of its own."""
    own = class_of(dataset).__mro__[: bases.index('CustomDataset')] if 'CustomDataset' in bases else None  # type: ignore
    return own is not None and all(
        base.__module__.startswith('mmpretrain.') or not {'load_data_list', '_find_samples'} & vars(base).keys()
        for base in own
    )


def _reads_as_coco(dataset: Mapping[str, Any]) -> bool:
    """Whether a dataset reads its file as mmdet's ``CocoDataset`` does, not by a method of its own."""
    kind: Any = class_of(dataset)
    base = next(base for base in kind.__mro__ if base.__name__ == 'CocoDataset')
    return kind.load_data_list is base.load_data_list and not dataset.get('return_classes')


def _check_categories(dataset: Mapping[str, Any], split: str, classes: int | None) -> None:
    """Raise unless the classes that a dataset names are categories of its COCO file, in its order, and all are known.

    mmdet passes over the annotations of other categories without a word, and numbers the others by the file's order.
    """
    path = joined(dataset, dataset['ann_file'])
    content = coco_content(path, ('categories',))
    found = category_names(content) or []
    own = names_classes(dataset)
    names = own or tuple(getattr(class_of(dataset), 'METAINFO', {}).get('classes') or ())
    key = f'{split}_dataloader.dataset.metainfo.classes'
    if not found or not names:
        return
    follow = f'num_classes={len(found)} in the config, or by --cfg-options, takes the names from the file'
    unnamed = [name for name in found if name not in names]
    if missing := [name for name in names if name not in found]:
        whose = key if own else f"the dataset's type, {class_of(dataset).__name__},"  # type: ignore[union-attr]
        known = did_you_mean(missing[0], unnamed)
        has = f'{path!r} has the categories {some_names(found)}'
        raise UserError(f'{has}; {whose} names {len(missing)} classes that are none ({some(missing)}).{known} {follow}')
    order = [name for name in found if name in names]
    if order != list(names):
        i = next(i for i, (one, other) in enumerate(zip(order, names)) if one != other)
        what = f'{key} has {names[i]!r} as class {i}, and {path!r} has {order[i]!r}'
        raise UserError(f'{what}: mmdet numbers classes in the order of the file, so name them in that order')
    if classes is not None and len(names) != classes and 'Panoptic' not in ''.join(base_names(dataset)):
        raise UserError(f'{path!r} gives {len(names)} classes, and the model has {classes}: {follow}')
    if content and 'images' not in content:
        content = None  # a long file, of which the categories alone were read
    if content and split == 'train' and 'LoadEmptyAnnotations' not in map(type_name, dataset.get('pipeline') or ()):
        _check_any_left(dataset, path, content)
    categories = {category.get('id'): category.get('name') for category in (content or {}).get('categories') or ()}
    known_ids = set(categories)
    for annotation in (content or {}).get('annotations') or ():
        if annotation.get('ignore') or categories.get(annotation.get('category_id'), names[0]) not in names:
            continue  # as mmdet does
        if lacking := [key for key in ('bbox', 'area') if key not in annotation]:
            what = f'annotation {annotation.get("id")} of {path!r} has no {" and no ".join(lacking)}'
            raise UserError(f'{what}: mmdet needs bbox=[x, y, width, height] and area of each, in pixels')
        if annotation.get('category_id') not in known_ids:
            what = f'annotation {annotation.get("id")} of {path!r} has category_id={annotation.get("category_id")!r}'
            raise UserError(f'{what}, which is none of its categories ({some(map(str, known_ids))})')
        if _wants_masks(dataset) and not annotation.get('segmentation') and _has_area(annotation):
            what = f'annotation {annotation.get("id")} of {path!r} has no segmentation, which masks are learnt from'
            how = 'with boxes alone set with_mask=False in the pipelines and model.roi_head.mask_head=None'
            raise UserError(f'{what}: {how} ({_PAGES["CocoDataset"]})')
    if unnamed:
        print(f'{path}: the annotations of {len(unnamed)} categories are left out: {some(unnamed)}', flush=True)


def _check_order(dataset: Mapping[str, Any], cfg: Config) -> None:
    """Raise if a split has the classes of the training data in another order: labels would not mean the same."""
    names = names_classes(dataset)
    for trained in map(names_classes, split_datasets(cfg, 'train')):
        if trained != names and sorted(trained) == sorted(names):
            i = next(i for i, (one, other) in enumerate(zip(trained, names)) if one != other)
            what = f'{joined(dataset, dataset["ann_file"])!r} has {names[i]!r} as class {i}'
            how = 'mmdet numbers classes in the order of a file, so list the categories of both files in one order'
            raise UserError(f'{what}, and the data of train_dataloader has {trained[i]!r}: {how}')


def _has_area(annotation: Mapping[str, Any]) -> bool:
    """Whether mmdet takes an annotation for more than nothing."""
    _, _, width, height = annotation.get('bbox') or (0, 0, 0, 0)
    return annotation.get('area', 1) > 0 and width >= 1 and height >= 1


def _check_any_left(dataset: Mapping[str, Any], path: str, content: Mapping[str, Any]) -> None:
    """Raise if mmdet would leave out every image, those without annotations and the smallest, as the filter says."""
    rule = dataset.get('filter_cfg') or {}
    images = content.get('images') or ()
    least, annotated = rule.get('min_size', 0), {one.get('image_id') for one in content.get('annotations') or ()}
    large = [one for one in images if min(one.get('width', least), one.get('height', least)) >= least]
    left = [one for one in large if one.get('id') in annotated or not rule.get('filter_empty_gt')]
    if not left:
        why = (
            'has an annotation' if large or not images else f'is at least filter_cfg.min_size={least} px high and wide'
        )
        raise UserError(f'{path!r} leaves nothing to train on: none of its {len(images)} images {why}')


def _wants_masks(dataset: Mapping[str, Any]) -> bool:
    return any(type_name(step) == 'LoadAnnotations' and step.get('with_mask') for step in dataset.get('pipeline') or ())


def _check_maps(dataset: Mapping[str, Any], split: str) -> None:
    """Raise unless there are images of the dataset's suffix, each with a label map of its name."""
    prefix = dataset.get('data_prefix') or {}
    images, maps = (joined(dataset, prefix.get(key) or '') for key in ('img_path', 'seg_map_path'))
    suffix, other = dataset.get('img_suffix', '.jpg'), dataset.get('seg_map_suffix', '.png')
    there = _files(images)
    names = {name.removesuffix(suffix) for name in there if name.endswith(suffix)}
    key = f'{split}_dataloader.dataset'
    if not names:
        kinds = sorted({os.path.splitext(name)[1] for name in there})
        holds = f'{len(there)} files ({some(kinds)})' if there else 'nothing'
        how = f'set {key}.img_suffix' if there else 'put some there'
        raise UserError(f'{images!r} holds {holds} and no {suffix} image: {how} ({_PAGES["BaseSegDataset"]})')
    if prefix.get('seg_map_path'):
        lacking = names - {name.removesuffix(other) for name in _files(maps) if name.endswith(other)}
        if lacking:
            what = f'{len(lacking)} of {len(names)} images in {images!r} have no label map in {maps!r}'
            raise UserError(f'{what}, for one {min(lacking) + other!r} (another ending: {key}.seg_map_suffix)')


def _files(folder: str) -> list[str]:
    """The files below a folder that mmengine lists there, by their paths from it."""
    if folder.startswith(f'{PREFIX}://'):
        return list(list_dir_or_file(folder, list_dir=False, recursive=True))
    return [
        os.path.relpath(os.path.join(place, name), folder)
        for place, _, names in os.walk(folder, followlinks=True)
        for name in names
        if not name.startswith('.')
    ]
