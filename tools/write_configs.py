"""Write the configs of experiments, the model zoo and the results in docs/ from the tables of recipes and networks.

A config's settings are a dict like mmengine's. A recipe that is like another one inherits its config and states only
what differs, by mmengine's rules for merging.
"""

import argparse
import re
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT))  # a clone works without installing
from nfnet_mm.errors import UserError  # noqa: E402

try:
    from nfnet_mm.analysis.model_zoo import result_files, zoo_files
except UserError as error:  # a row of a table is wrong
    sys.exit(f'error: {error}')
from nfnet_mm.recipes import (  # noqa: E402
    COCO,
    IMAGENET,
    PRETRAINING_CLASSES,
    TRANSFERS,
    VOC,
    WARMUP_EPOCHS,
    ImageNetRecipe,
    TransferRecipe,
)
from nfnet_mm.run import one_line_errors  # noqa: E402

_WIDTH = 120
_WRITTEN = '# Written by tools/write_configs.py from nfnet_mm/recipes.py.\n'
_PRETRAINING = f"""\
# SET ME: the images and classes of your labelled set, data/pretrain/train/<class>/*.jpg; these are ImageNet-21k's.
images, num_classes = {{images}}, {PRETRAINING_CLASSES}
"""
_PIPELINES = """\
train_pipeline, test_pipeline = _base_.train_pipeline, _base_.test_pipeline
train_pipeline[1].update(scale={train}, clip={clip})
test_pipeline[1].update(type='{view}', size={test})
"""
_NO_VALIDATION = 'val_dataloader = val_evaluator = val_cfg = test_dataloader = test_evaluator = test_cfg = None\n'


def config_files() -> dict[str, str]:
    """{path from the root of a working tree: its text} of all configs that are written from the recipes."""
    texts = {recipe.config: imagenet(recipe) for recipe in IMAGENET.values()}
    return texts | {recipe.config: transfer(recipe) for recipe in TRANSFERS.values()}


@dataclass(frozen=True)
class _Name:
    """A name that stands in a config for a value."""

    name: str
    value: Any


def imagenet(recipe: ImageNetRecipe) -> str:
    """The config of a recipe on ImageNet."""
    recipe, like = recipe.resolved, IMAGENET[recipe.like].resolved if recipe.like else None
    own_data = recipe.pretraining and not (like and like.pretraining)
    settings = _settings(recipe)
    old = _settings(like) if like else dict(train_dataloader=dict(dataset={}))  # the base file names a data set
    changed = _difference(settings, old)
    if 'custom_hooks' in old and 'custom_hooks' not in settings:
        changed['custom_hooks'] = []
    body = ''
    for key, value in changed.items():
        if key == 'train_dataloader' and 'dataset' in value:
            sizes = dict(train=recipe.train_size, test=recipe.test_size)
            body += _PIPELINES.format(clip=recipe.mixing, view=recipe.view, **sizes)
        body += '\n'.join(_lines(f'{key} = ', value)) + '\n'
        if key == 'train_dataloader' and own_data:
            body += _NO_VALIDATION
    text = _WRITTEN + _said(recipe)
    text += f"_base_ = '{f'{like.name}.py' if like else '../_base_/recipe/imagenet.py'}'\n"
    if own_data:
        text += _PRETRAINING.format(images=recipe.images)
    if re.search(r'= ?(total_batch|max_iters|warmup)\b', body):
        images = 'images' if own_data else '_base_.images'
        iters = f'{recipe.epochs} * {images} // total_batch' if recipe.steps is None else recipe.steps
        warmup = f'{WARMUP_EPOCHS} * {images} // total_batch' if recipe.warmup_steps is None else recipe.warmup_steps
        text += f'total_batch = {recipe.total_batch}\nmax_iters, warmup = {iters}, {warmup}'
        text += '\n' if recipe.steps else f'  # {recipe.max_iters:,} and {recipe.warmup:,}\n'
    return text + body


def _said(recipe: ImageNetRecipe) -> str:
    """The arithmetic of the batch, and what the paper says."""
    parts = recipe.batch * recipe.devices
    text = f'# {recipe.total_batch} = {recipe.batch} images x {recipe.devices} GPU{"s" * (recipe.devices > 1)}'
    if recipe.total_batch > parts:
        text += f' x {recipe.total_batch // parts} accumulated'
    text += '; the ascent step takes a fifth of each.\n' if recipe.sam else '.\n'
    told = [recipe.note] if recipe.note else []
    if recipe.top1:
        figures = f'top-1 / top-5 {recipe.top1} / {recipe.top5}' if recipe.top5 else f'top-1 {recipe.top1}'
        told.insert(0, f'Paper: {figures} ({recipe.source}).')
    return f'{text}# {" ".join(told) or "In neither paper."}\n'


def _settings(recipe: ImageNetRecipe) -> dict[str, Any]:
    """What the recipe decides, the rest being in configs/_base_; a dict with a type is whole."""
    if recipe.batch_norm:
        backbone = dict(type='nfnet_mm.BNResNet', depth=recipe.found.cfg['depth'], out_indices=(3,))
    else:
        backbone = dict(**recipe.found.cfg, out_indices=(4,), drop_path_rate=recipe.drop_path)
    if recipe.with_cp:
        backbone['with_cp'] = True
    if recipe.start:
        saved = f'work_dirs/{recipe.start}/iter_{IMAGENET[recipe.start].max_iters}.pth'
        backbone['init_cfg'] = _start(recipe.batch_norm, saved)
    head: dict[str, Any] = dict(in_channels=recipe.found.channels(4), dropout=recipe.dropout)
    if recipe.found.family == 'NFRegNet':  # the authors' code
        head['init_cfg'] = dict(type='Constant', layer='Linear', val=0)
    # Both pipelines are written if one differs.
    pictures = recipe.train_size, recipe.test_size, recipe.mixing, recipe.view
    data: dict[str, Any] = dict(pipeline=_Name('train_pipeline', pictures))
    collate: dict[str, Any] = dict(type='default_collate')
    if recipe.mixing:
        collate = dict(type='nfnet_mm.mixing_collate', num_classes=1000)
        if recipe.randaugment is not None:
            collate['randaugment'] = dict(magnitude=recipe.randaugment)
    if recipe.pretraining:
        classes = _Name('num_classes', PRETRAINING_CLASSES)
        head |= dict(num_classes=classes, loss=dict(num_classes=classes))
        data = dict(type='CustomDataset', data_root='data/pretrain', data_prefix='train', **data)
    scope, clips = ('', '') if recipe.agc is None else ('nfnet_mm.', 'AGC')
    wrapper: dict[str, Any] = dict(type=f'{scope}{"Amp" if recipe.bfloat16 else ""}{clips}OptimWrapper')
    if recipe.agc is not None:
        wrapper['agc'] = dict(clipping=recipe.agc, eps=1e-3)
    if recipe.bfloat16:
        wrapper['dtype'] = 'bfloat16'
    wrapper['constructor'] = 'nfnet_mm.NFOptimWrapperConstructor'
    sgd = dict(type='SGD', lr=recipe.lr, momentum=0.9, nesterov=True, weight_decay=recipe.weight_decay)
    batch, steps, warmup = (_Name(name, getattr(recipe, name)) for name in ('total_batch', 'max_iters', 'warmup'))
    settings: dict[str, Any] = dict(model=dict(backbone=backbone, head=head))
    settings['train_dataloader'] = dict(batch_size=recipe.batch, dataset=data, collate_fn=collate)
    if not recipe.pretraining:
        settings['val_dataloader'] = dict(dataset=dict(pipeline=_Name('test_pipeline', pictures)))
        settings['test_dataloader'] = _Name('val_dataloader', pictures)
    settings['optim_wrapper'] = dict(**wrapper, optimizer=sgd)
    lr_batch, interval = batch if recipe.scale_lr else None, recipe.val_interval
    settings['train_cfg'] = dict(total_batch=batch, lr_batch=lr_batch, max_iters=steps, val_interval=interval)
    rising = dict(type='LinearLR', start_factor=1e-8, by_epoch=False, begin=0, end=_Name('warmup + 1', recipe.warmup))
    falling = dict(type='CosineAnnealingLR', by_epoch=False, begin=warmup, end=steps)
    falling['T_max'] = _Name('max_iters - warmup', recipe.max_iters - recipe.warmup)
    settings['param_scheduler'] = [rising, falling]
    hooks: list[dict[str, Any]] = []
    if recipe.ema is not None:
        hooks.append(dict(type='EMAHook', ema_type='nfnet_mm.WarmupEMA', momentum=recipe.ema))
    if recipe.sam:
        hooks.append(dict(type='nfnet_mm.SAMHook', rho=0.05, fraction=0.2))
    if hooks:
        settings['custom_hooks'] = hooks
    if recipe.pretraining:
        settings['default_hooks'] = dict(checkpoint=dict(save_best=None))
    elif recipe.max_iters > 1_000_000:
        settings['default_hooks'] = dict(logger=dict(interval=1000), checkpoint=dict(interval=20_000))
    return settings


def _start(batch_norm: bool, checkpoint: Any) -> dict[str, Any]:
    """The initializer that loads a classifier's backbone."""
    if batch_norm:
        return dict(type='Pretrained', checkpoint=checkpoint, prefix='backbone.')
    return dict(type='nfnet_mm.NFPretrained', checkpoint=checkpoint)


def transfer(recipe: TransferRecipe) -> str:
    """The config of a transfer to another task."""
    task, found, normed = recipe.task, recipe.found, recipe.batch_norm
    said = task.title.format(recipe.title)
    if recipe.figures:
        figures = re.sub(r'\b0\.', '.', task.figures.format(*recipe.figures))
        said += f': {figures} ({task.source}).'
    else:
        said += ', by the recipe of the NFNets; in neither paper (its BatchNorm baseline is).'
    expects = (
        f'Expects {task.data}. Batch {task.total_batch} = train_dataloader.batch_size ({task.batch}) x GPUs x '
        f'accumulation, the last derived: one GPU accumulates {task.total_batch // task.batch} times.'
    )
    init = f'init = dict(init_cfg={_python(_start(normed, _Name("weights", None)))}) if weights else {{}}\n'
    weights, setting = 'None', {'': _Name('**init', None)}
    model: dict[str, Any] = dict(backbone={**found.cfg, 'out_indices': (4,), **setting})
    if task is COCO and normed:
        weights, init = f"'torchvision://resnet{found.key}'", ''
        model = dict(backbone=dict(depth=found.cfg['depth'], init_cfg=dict(checkpoint=_Name('weights', None))))
    elif task is COCO:
        backbone = dict(_delete_=True, **found.cfg, out_indices=(0, 1, 2, 3), frozen_stages=-1)
        if recipe.drop_path:
            backbone['drop_path_rate'] = recipe.drop_path
        model = dict(backbone={**backbone, **setting}, neck=dict(in_channels=list(found.arch.widths)))
    elif normed:
        init += "norm_cfg = dict(type='BN')\n"
        norm = _Name('norm_cfg', None)
        backbone = dict(type='nfnet_mm.BNResNet', depth=found.cfg['depth'], out_indices=(3,), norm_cfg=norm)
        head = dict(norm_cfg=_Name('dict(_delete_=True, **norm_cfg)', None) if task is VOC else norm)
        model = dict(backbone={**backbone, 'norm_eval': False, **setting}, decode_head=head)
    base = task.recipe if normed or task is VOC else f'{task.recipe}_agc'
    comment = textwrap.fill(_weights_hint(recipe), _WIDTH, initial_indent='# ', subsequent_indent='# ')
    text = f'{_WRITTEN}"""{said}\n\n{textwrap.fill(expects, _WIDTH)}\n"""\n'
    text += f"_base_ = './_base_/recipe/{base}.py'\n\n{comment}\nweights = {weights}\n{init}"
    return text + '\n'.join(_lines('model = ', model)) + '\n'


def _weights_hint(recipe: TransferRecipe) -> str:
    key = recipe.found.key
    if recipe.batch_norm and recipe.task is COCO:
        return "The ImageNet weights to start from: a URL, or a checkpoint of mmdet's ResNet."
    which = 'a classifier of ours'
    if recipe.batch_norm:
        which = "a classifier of mmpretrain's or ours"
    elif recipe.found.family == 'NFNet':
        which = f"the authors' {key}_haiku.npz, timm's dm_nfnet_{key.lower()}, or {which}"
    elif key == '50':
        which += ", or timm's nf_resnet50, whose shape is another: with them set depth='timm/nf_resnet50'"
    random = ', for which 22,500 steps are too few' if recipe.task is COCO else ''
    return f'SET ME: the ImageNet weights to start from: {which}. None starts from random weights{random}.'


def _difference(new: dict[str, Any], old: dict[str, Any]) -> dict[str, Any]:
    """What to merge into ``old``, as mmengine merges, to get ``new``; dicts without a type may lack keys of ``old``.

    >>> _difference(dict(lr=1, loop=dict(type='A', n=2)), dict(lr=1, loop=dict(type='B', m=2)))
    {'loop': {'_delete_': True, 'type': 'A', 'n': 2}}
    """
    changed = {}
    for key, value in new.items():
        before = old.get(key)
        if isinstance(value, dict) and isinstance(before, dict):
            if 'type' in value and ('type' not in before or not before.keys() <= value.keys()):
                value = dict(_delete_=True, **value)
            else:
                value = _difference(value, before)
            if value:
                changed[key] = value
        elif key not in old or value != before:
            changed[key] = value
    return changed


def _python(value: Any) -> str:
    """A value as a config writes it.

    >>> _python(dict(lr=1e-5, out_indices=(4,), hooks=[None]))
    'dict(lr=1e-5, out_indices=(4, ), hooks=[None])'
    """
    match value:
        case _Name():
            return value.name
        case dict():
            return f'dict({", ".join(f"{key}={_python(item)}" if key else item.name for key, item in value.items())})'
        case list():
            return f'[{", ".join(map(_python, value))}]'
        case (item,):
            return f'({_python(item)}, )'
        case float() if 0 < value <= 1e-3:
            return f'{value:g}e'.replace('0.001e', '1e-3').replace('0.0001e', '1e-4').replace('e-0', 'e-').rstrip('e')
    return repr(value)


def _lines(head: str, value: Any, indent: str = '') -> list[str]:
    """``head`` and a value in lines that fit."""
    text = f'{indent}{head}{_python(value)}'
    if len(text) < _WIDTH or not isinstance(value, dict | list):  # a comma may follow
        return [text]
    left, right, items = '[', ']', [('', item) for item in value]
    if isinstance(value, dict):
        left, right, items = 'dict(', ')', [(f'{key}=' if key else '', item) for key, item in value.items()]
    lines, inner, free = [f'{indent}{head}{left}'], f'{indent}    ', 0
    for name, item in items:
        text = f'{name}{_python(item)},'
        if len(text) < free:
            lines[-1] += f' {text}'
        else:
            broken = _lines(name, item, inner)
            lines += [*broken[:-1], f'{broken[-1]},']
        free = _WIDTH - len(lines[-1]) if lines[-1].endswith(text) else 0
    return [*lines[:-1], lines[-1][:-1] + right]


@one_line_errors
def main() -> None:
    """Write the files that are not as they should be."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    files = {**config_files(), **zoo_files(), **result_files(ROOT)}
    old = {name: (ROOT / name).read_text() for name in files if (ROOT / name).exists()}
    changed = {name: text for name, text in files.items() if text != old.get(name)}
    for name, text in changed.items():
        (ROOT / name).write_text(text)
        print(f'written: {name}')
    print(f'{len(files) - len(changed)} of {len(files)} files were up to date')
    for path in sorted((ROOT / 'configs').rglob('*.py')):
        if path.read_text().startswith(_WRITTEN) and str(path.relative_to(ROOT)) not in files:
            print(f'no recipe makes it any more, delete it: {path.relative_to(ROOT)}')


if __name__ == '__main__':
    main()
