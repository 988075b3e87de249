"""Configs of training and fine-tuning on ImageNet and larger sets.

A config's settings are a dict like mmengine's. A recipe that is like another one inherits its config and states only
what differs, by mmengine's rules for merging.
"""

from typing import Any

from nfnet_mm.recipes import IMAGENET, PRETRAINING_CLASSES, SAM_FRACTION, WARMUP_EPOCHS, ImageNetRecipe

from .parts import CONSTRUCTOR, LOOP, sgd, start
from .text import WRITTEN, Name, assignments, comment, difference

_PRETRAINING = f"""\
# SET ME: the images and classes of your labelled set, data/pretrain/train/<class>/*.jpg; these are ImageNet-21k's.
images, num_classes = {{images}}, {PRETRAINING_CLASSES}
"""
_PIPELINES = """\
train_pipeline, test_pipeline = _base_.train_pipeline, _base_.test_pipeline
train_pipeline[1].update(scale={train})
test_pipeline[1].update(type='{view}', size={test})
"""
_NO_VALIDATION = 'val_dataloader = val_evaluator = val_cfg = test_dataloader = test_evaluator = test_cfg = None\n'


def imagenet(recipe: ImageNetRecipe) -> str:
    """The config of a recipe on ImageNet."""
    recipe, like = recipe.resolved, IMAGENET[recipe.like].resolved if recipe.like else None
    own_data = recipe.pretraining and not (like and like.pretraining)
    settings = _settings(recipe)
    old = _settings(like) if like else dict(train_dataloader=dict(dataset={}))  # the base file names a data set
    changed = difference(settings, old)
    if 'custom_hooks' in old and 'custom_hooks' not in settings:
        changed['custom_hooks'] = []
    if recipe.start:  # which every fine-tuning states, though it inherits another one
        backbone = changed.setdefault('model', {}).setdefault('backbone', {})
        backbone['init_cfg'] = settings['model']['backbone']['init_cfg']
    body = ''
    for key, value in changed.items():
        if key == 'train_dataloader' and 'dataset' in value:
            body += _PIPELINES.format(view=recipe.view, train=recipe.train_size, test=recipe.test_size)
        body += assignments({key: value})
        if key == 'train_dataloader' and own_data:
            body += _NO_VALIDATION
    text = WRITTEN + _said(recipe)
    text += f"_base_ = '{f'{like.name}.py' if like else '../_base_/recipe/imagenet.py'}'\n"
    if own_data:
        text += _PRETRAINING.format(images=recipe.images)
    if recipe.start:
        hint = f'the last checkpoint of {recipe.start}.py, or any other of this network'
        text += f'# SET ME, or --cfg-options weights=FILE: {hint}.\nweights = None\n'
    return text + body


def _said(recipe: ImageNetRecipe) -> str:
    """The arithmetic of the batch, what the paper reports, and what is a choice."""
    parts = recipe.batch * recipe.devices
    what = 'samples, each mixed from two images,' if recipe.mixing else 'images'
    text = f'{recipe.total_batch} = {recipe.batch} {what} x {recipe.devices} GPU{"s" * (recipe.devices > 1)}'
    if recipe.total_batch > parts:
        text += f' x {recipe.total_batch // parts} accumulated'
    text += '; the ascent step takes a fifth of each.' if recipe.sam else '.'
    text += f' That takes about {recipe.memory} GB of each.' if recipe.memory else ''
    told = [recipe.note] if recipe.note else []
    if recipe.top1:
        figures = f'top-1 / top-5 {recipe.top1} / {recipe.top5}' if recipe.top5 else f'top-1 {recipe.top1}'
        told.insert(0, f'Paper: {figures} ({recipe.source}).')
    elif recipe.source:
        told.insert(0, f'{recipe.source}.')
    told = told or ['In neither paper.']
    if recipe.reading:
        told.append(f'A reading: {recipe.reading}')
    return comment(text) + comment(' '.join(told))


def _settings(recipe: ImageNetRecipe) -> dict[str, Any]:
    """What the recipe decides, the rest being in configs/_base_; a dict with a type is whole."""
    backbone = dict(**recipe.backbone, out_indices=(4,), drop_path_rate=recipe.drop_path)
    if recipe.with_cp:
        backbone['with_cp'] = True
    if recipe.start:
        backbone['init_cfg'] = start()
    head: dict[str, Any] = dict(in_channels=recipe.features, dropout=recipe.dropout)
    if recipe.found.family not in ('NFNet', 'NFResNet', 'BNNFNet'):  # the authors' code
        head['init_cfg'] = dict(type='Constant', layer='Linear', val=0)
    # Both pipelines are written if one differs.
    pictures = recipe.train_size, recipe.test_size, recipe.view
    data: dict[str, Any] = dict(pipeline=Name('train_pipeline', pictures))
    collate: dict[str, Any] = dict(type='default_collate')
    if recipe.mixing:
        collate = dict(type='nfnet_mm.mixing_collate', num_classes=1000)
        collate |= {kind: False for kind in ('mixup', 'cutmix') if not getattr(recipe, kind)}
        if recipe.randaugment:
            collate['randaugment'] = dict(magnitude=recipe.randaugment)
    if recipe.pretraining:
        classes = Name('num_classes', PRETRAINING_CLASSES)
        head |= dict(num_classes=classes, loss=dict(num_classes=classes))
        data = dict(type='CustomDataset', data_root='data/pretrain', data_prefix='train', **data)
    scope, clips = ('', '') if recipe.agc is None else ('nfnet_mm.', 'AGC')
    wrapper: dict[str, Any] = dict(type=f'{scope}{"Amp" if recipe.bfloat16 else ""}{clips}OptimWrapper')
    if recipe.agc is not None:
        wrapper['agc'] = dict(clipping=recipe.agc, eps=1e-3)
    if recipe.clip_norm is not None:
        wrapper['clip_grad'] = dict(max_norm=recipe.clip_norm)
    if recipe.bfloat16:
        wrapper['dtype'] = 'bfloat16'
    wrapper['constructor'] = CONSTRUCTOR
    settings: dict[str, Any] = dict(model=dict(backbone=backbone, head=head))
    batch_size = recipe.batch * (2 if recipe.mixing else 1)
    settings['train_dataloader'] = dict(batch_size=batch_size, dataset=data, collate_fn=collate)
    if not recipe.pretraining:
        settings['val_dataloader'] = dict(dataset=dict(pipeline=Name('test_pipeline', pictures)))
        settings['test_dataloader'] = Name('val_dataloader', pictures)
    settings['optim_wrapper'] = dict(**wrapper, optimizer=sgd(recipe.lr, recipe.weight_decay, recipe.optimizer))
    loop: dict[str, Any] = dict(type=LOOP, total_batch=recipe.total_batch)
    loop['lr_batch'] = recipe.total_batch if recipe.scale_lr else None
    if recipe.steps:
        loop |= dict(max_iters=recipe.steps, val_interval=1000)
    else:
        images = Name('images' if recipe.pretraining else '_base_.images', recipe.images)
        loop |= dict(max_epochs=recipe.epochs, images=images, val_interval=recipe.val_epochs)
    settings['train_cfg'] = loop
    # mmengine's LinearLR is at the full rate one step before its end; epochs are converted so by the loop.
    counts: dict[str, Any] = {} if recipe.warmup_steps is None else dict(by_epoch=False)
    end = WARMUP_EPOCHS if recipe.warmup_steps is None else recipe.warmup_steps + 1
    rising = dict(type='LinearLR', start_factor=1e-8, **counts, end=end)
    falling = dict(type='CosineAnnealingLR', **counts, begin=recipe.warmup_steps or WARMUP_EPOCHS)
    if recipe.floor:
        falling['eta_min_ratio'] = recipe.floor
    settings['param_scheduler'] = [rising, falling]
    hooks: list[dict[str, Any]] = []
    if recipe.ema is not None:
        average = dict(type='EMAHook', ema_type='nfnet_mm.WarmupEMA', momentum=recipe.ema)
        hooks.append(average | (dict(update_buffers=True) if recipe.batch_norm else {}))  # the authors' code
    if recipe.sam:
        hooks.append(dict(type='nfnet_mm.SAMHook', rho=0.05, fraction=SAM_FRACTION))
    if hooks:
        settings['custom_hooks'] = hooks
    if recipe.pretraining:
        settings['default_hooks'] = dict(checkpoint=dict(save_best=None))
    elif recipe.max_iters > 1_000_000:
        settings['default_hooks'] = dict(logger=dict(interval=1000), checkpoint=dict(interval=20_000))
    return settings
