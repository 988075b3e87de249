"""Configs of transfers to detection, segmentation and depth, and of fine-tuning on a user's own data."""

import re
from typing import Any

from nfnet_mm.recipes import COCO, VOC, FineTuning, Task, TransferRecipe

from .parts import CONSTRUCTOR, LOOP, sgd, start
from .text import WRITTEN, assignments, comment, docstring


def task_base(task: Task) -> str:
    """The file of configs/_base_/recipe that all networks transferred to a task inherit."""
    bases = [f'../{base}.py' for base in task.bases]
    text = f'{WRITTEN}{docstring(task.summary, task.said)}_base_ = {bases!r}\n'
    at_once = task.devices * task.batch
    assert at_once == task.total_batch
    text += task.sizes + comment(
        f'An update sees {task.total_batch} pictures on any number of GPUs; with train_dataloader.batch_size='
        f'{task.batch}, {task.devices} of them accumulate none. Another total_batch scales the learning rate, which '
        'lr_batch is meant for; steps stay steps.'
    )
    loop = dict(type=LOOP, total_batch=task.total_batch, lr_batch=task.total_batch, max_iters=task.steps)
    settings = dict(
        train_cfg=dict(**loop, val_interval=task.val_steps),
        optim_wrapper=dict(type='OptimWrapper', constructor=CONSTRUCTOR, optimizer=sgd(task.lr, task.weight_decay)),
        param_scheduler=[dict(scheduler) for scheduler in task.schedule],
    )
    if task.save_best:
        settings['default_hooks'] = dict(checkpoint=dict(interval=task.val_steps, **task.save_best))
    return text + assignments(settings)


def task_agc(task: Task) -> str:
    """The same with AGC, for networks without BatchNorm."""
    wrapper = dict(type='nfnet_mm.AGCOptimWrapper', agc=dict(clipping=task.agc, eps=1e-3))
    wrapper['paramwise_cfg'] = dict(agc_exclude=list(task.last_layers))
    text = f"{WRITTEN}{docstring(f'AGC for {task.recipe}.py.', task.agc_said)}_base_ = '{task.recipe}.py'\n"
    return text + assignments(dict(optim_wrapper=wrapper))


def transfer(recipe: TransferRecipe) -> str:
    """The config of a transfer to another task."""
    task, found = recipe.task, recipe.found
    said = f'{task.title.format(recipe.title)}.'
    if recipe.figures:
        figures = re.sub(r'\b0\.', '.', task.figures.format(*recipe.figures))
        said = f'{said[:-1]}: {figures} ({task.source}).'
    more = ' '.join(filter(None, (recipe.note, f'A reading: {recipe.reading}' if recipe.reading else '')))
    expects = (
        f'Expects {task.data}. Batch {task.total_batch} = train_dataloader.batch_size ({task.batch}) x GPUs x '
        f'accumulation, the last derived: one GPU accumulates {task.total_batch // task.batch} times.'
    )
    indices = (0, 1, 2, 3) if task is COCO else (4,)
    backbone = dict(**found.cfg, out_indices=indices)
    if recipe.drop_path:
        backbone['drop_path_rate'] = recipe.drop_path
    backbone['init_cfg'] = start()
    model: dict[str, Any] = dict(backbone=backbone)
    extra = ''
    if task is COCO:
        model = dict(backbone=dict(_delete_=True, **backbone), neck=dict(in_channels=list(found.arch.widths)))
        extra = "sync_bn = 'torch'\n" if recipe.batch_norm else ''
    elif recipe.batch_norm:
        norm = dict(type='BN')
        model['decode_head'] = dict(norm_cfg=dict(_delete_=True, **norm) if task is VOC else norm)
    base = f'{task.recipe}_agc' if task.agc and not recipe.batch_norm else task.recipe
    text = WRITTEN + docstring(said, more, expects)
    text += f"_base_ = './_base_/recipe/{base}.py'\n\n{comment(_weights_hint(recipe))}weights = None\n{extra}"
    return text + assignments(dict(model=model))


def fine_tuning(recipe: FineTuning) -> str:
    """The config of a fine-tuning on a user's own data."""
    text = WRITTEN + docstring(recipe.summary, recipe.said) + f"_base_ = './{recipe.base}'\n"
    text += comment(f'SET ME: the folder that holds {recipe.layout}.') + "data_root = 'data/own'\n"
    if recipe.num_classes:
        text += f'num_classes = {recipe.num_classes}  # all that depends on it follows, by tools/train.py\n'
    text += "# deepmind/F0, or a file of DeepMind's, timm's or ours; None starts from random weights.\nweights = None\n"
    return text + assignments(recipe.settings)


def _weights_hint(recipe: TransferRecipe) -> str:
    key = recipe.found.key
    which = 'a classifier of ours'
    if recipe.found.family == 'NFNet':
        which = f'deepmind/{key}, timm/dm_nfnet_{key.lower()}, or {which}'
    elif recipe.network == 'nf_resnet50':
        which += ", or timm/nf_resnet50, whose shape is another: with them set depth='timm/nf_resnet50'"
    random = ', for which 22,500 steps are too few' if recipe.task is COCO else ''
    hint = 'SET ME, or --cfg-options weights=FILE: the ImageNet weights to start from:'
    return f'{hint} {which}. None starts from random weights{random}.'
