"""Write what nfnet_mm/recipes tells: configs, the model zoo, docs/reproduce.md and the tables in other pages of docs.

Run it after adding a row, of an experiment or of the networks.

A config's settings are a dict like mmengine's. A recipe that is like another one inherits its config and states only
what differs, by mmengine's rules for merging.
"""

import argparse
import re
import sys
import textwrap
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT))  # a clone works without installing
from nfnet_mm.errors import UserError  # noqa: E402

try:
    from nfnet_mm.analysis.model_zoo import result_files, zoo_files
except UserError as error:  # a row of a table is wrong
    sys.exit(f'error: {error}')
from nfnet_mm.analysis.reproduce import reproduce_files  # noqa: E402
from nfnet_mm.analysis.scaling_page import scaling_files  # noqa: E402
from nfnet_mm.analysis.transfer_cost import cost_files  # noqa: E402
from nfnet_mm.commands.command_line import one_line_errors  # noqa: E402
from nfnet_mm.models.backbones.arch import Network, find_network  # noqa: E402
from nfnet_mm.recipes import (  # noqa: E402
    COCO,
    FINE_TUNINGS,
    IMAGENET,
    PRETRAINING_CLASSES,
    SAM_FRACTION,
    TRANSFERS,
    VOC,
    WARMUP_EPOCHS,
    FineTuning,
    ImageNetRecipe,
    Task,
    TransferRecipe,
)

_WIDTH = 120
_WRITTEN = '# Written by tools/write_configs.py from nfnet_mm/recipes.\n'
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
_LOOP = 'nfnet_mm.TotalBatchTrainLoop'
_CONSTRUCTOR = 'nfnet_mm.NFOptimWrapperConstructor'
# What configs/_base_/nf has for users' own configs, by the network's name.
_SWAPS = ('nfnet_f0', 'nfnet_f1', 'nf_resnet50', 'nf_resnet101')


def config_files() -> dict[str, str]:
    """{path from the root of a working tree: its text} of all configs that are written from the recipes."""
    texts = {recipe.config: imagenet(recipe) for recipe in IMAGENET.values()}
    texts |= {recipe.config: transfer(recipe) for recipe in TRANSFERS.values()}
    texts |= {recipe.config: fine_tuning(recipe) for recipe in FINE_TUNINGS.values()}
    for task in {recipe.task.recipe: recipe.task for recipe in TRANSFERS.values()}.values():
        texts[f'configs/_base_/recipe/{task.recipe}.py'] = task_base(task)
        if task.agc:
            texts[f'configs/_base_/recipe/{task.recipe}_agc.py'] = task_agc(task)
    return texts | {f'configs/_base_/nf/{name}.py': swap_base(find_network(name)) for name in _SWAPS}


@dataclass(frozen=True)
class _Name:
    """A name that stands in a config for a value."""

    name: str
    value: Any = None


def imagenet(recipe: ImageNetRecipe) -> str:
    """The config of a recipe on ImageNet."""
    recipe, like = recipe.resolved, IMAGENET[recipe.like].resolved if recipe.like else None
    own_data = recipe.pretraining and not (like and like.pretraining)
    settings = _settings(recipe)
    old = _settings(like) if like else dict(train_dataloader=dict(dataset={}))  # the base file names a data set
    changed = _difference(settings, old)
    if 'custom_hooks' in old and 'custom_hooks' not in settings:
        changed['custom_hooks'] = []
    if recipe.start:  # which every fine-tuning states, though it inherits another one
        backbone = changed.setdefault('model', {}).setdefault('backbone', {})
        backbone['init_cfg'] = settings['model']['backbone']['init_cfg']
    body = ''
    for key, value in changed.items():
        if key == 'train_dataloader' and 'dataset' in value:
            body += _PIPELINES.format(view=recipe.view, train=recipe.train_size, test=recipe.test_size)
        body += '\n'.join(_lines(f'{key} = ', value)) + '\n'
        if key == 'train_dataloader' and own_data:
            body += _NO_VALIDATION
    text = _WRITTEN + _said(recipe)
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
    return _comment(text) + _comment(' '.join(told))


def _docstring(*parts: str) -> str:
    """A config's docstring of a first line and paragraphs."""
    filled = [textwrap.fill(part, _WIDTH, break_on_hyphens=False) for part in parts if part]
    return f'"""{filled[0]}"""\n' if len(filled) == 1 else '"""' + '\n\n'.join(filled) + '\n"""\n'


def _comment(text: str) -> str:
    return textwrap.fill(text, _WIDTH, initial_indent='# ', subsequent_indent='# ', break_on_hyphens=False) + '\n'


def _settings(recipe: ImageNetRecipe) -> dict[str, Any]:
    """What the recipe decides, the rest being in configs/_base_; a dict with a type is whole."""
    backbone = dict(**recipe.backbone, out_indices=(4,), drop_path_rate=recipe.drop_path)
    if recipe.with_cp:
        backbone['with_cp'] = True
    if recipe.start:
        backbone['init_cfg'] = _start()
    head: dict[str, Any] = dict(in_channels=recipe.features, dropout=recipe.dropout)
    if recipe.found.family not in ('NFNet', 'NFResNet', 'BNNFNet'):  # the authors' code
        head['init_cfg'] = dict(type='Constant', layer='Linear', val=0)
    # Both pipelines are written if one differs.
    pictures = recipe.train_size, recipe.test_size, recipe.view
    data: dict[str, Any] = dict(pipeline=_Name('train_pipeline', pictures))
    collate: dict[str, Any] = dict(type='default_collate')
    if recipe.mixing:
        collate = dict(type='nfnet_mm.mixing_collate', num_classes=1000)
        collate |= {kind: False for kind in ('mixup', 'cutmix') if not getattr(recipe, kind)}
        if recipe.randaugment:
            collate['randaugment'] = dict(magnitude=recipe.randaugment)
    if recipe.pretraining:
        classes = _Name('num_classes', PRETRAINING_CLASSES)
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
    wrapper['constructor'] = _CONSTRUCTOR
    sgd = _sgd(recipe.lr, recipe.weight_decay, recipe.optimizer)
    settings: dict[str, Any] = dict(model=dict(backbone=backbone, head=head))
    batch_size = recipe.batch * (2 if recipe.mixing else 1)
    settings['train_dataloader'] = dict(batch_size=batch_size, dataset=data, collate_fn=collate)
    if not recipe.pretraining:
        settings['val_dataloader'] = dict(dataset=dict(pipeline=_Name('test_pipeline', pictures)))
        settings['test_dataloader'] = _Name('val_dataloader', pictures)
    settings['optim_wrapper'] = dict(**wrapper, optimizer=sgd)
    loop: dict[str, Any] = dict(type=_LOOP, total_batch=recipe.total_batch)
    loop['lr_batch'] = recipe.total_batch if recipe.scale_lr else None
    if recipe.steps:
        loop |= dict(max_iters=recipe.steps, val_interval=1000)
    else:
        images = _Name('images' if recipe.pretraining else '_base_.images', recipe.images)
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


def _sgd(lr: float, weight_decay: float, kind: str = 'SGD') -> dict[str, Any]:
    sgd = dict(type=kind, lr=lr, momentum=0.9, nesterov=True)
    return {**sgd, 'weight_decay': weight_decay} if weight_decay or kind == 'LARS' else sgd


def _start() -> dict[str, Any]:
    """The initializer that loads a backbone's weights; without any it warns."""
    return dict(type='nfnet_mm.NFPretrained', checkpoint=_Name('weights'))


def task_base(task: Task) -> str:
    """The file of configs/_base_/recipe that all networks transferred to a task inherit."""
    bases = [f'../{base}.py' for base in task.bases]
    text = f'{_WRITTEN}{_docstring(task.summary, task.said)}_base_ = {bases!r}\n'
    at_once = task.devices * task.batch
    assert at_once == task.total_batch
    text += task.sizes + _comment(
        f'An update sees {task.total_batch} pictures on any number of GPUs; with train_dataloader.batch_size='
        f'{task.batch}, {task.devices} of them accumulate none. Another total_batch scales the learning rate, which '
        'lr_batch is meant for; steps stay steps.'
    )
    loop = dict(type=_LOOP, total_batch=task.total_batch, lr_batch=task.total_batch, max_iters=task.steps)
    sgd = _sgd(task.lr, task.weight_decay)
    settings = dict(
        train_cfg=dict(**loop, val_interval=task.val_steps),
        optim_wrapper=dict(type='OptimWrapper', constructor=_CONSTRUCTOR, optimizer=sgd),
        param_scheduler=[dict(scheduler) for scheduler in task.schedule],
    )
    if task.save_best:
        settings['default_hooks'] = dict(checkpoint=dict(interval=task.val_steps, **task.save_best))
    return text + ''.join('\n'.join(_lines(f'{key} = ', value)) + '\n' for key, value in settings.items())


def task_agc(task: Task) -> str:
    """The same with AGC, for networks without BatchNorm."""
    wrapper = dict(type='nfnet_mm.AGCOptimWrapper', agc=dict(clipping=task.agc, eps=1e-3))
    wrapper['paramwise_cfg'] = dict(agc_exclude=list(task.last_layers))
    text = f"{_WRITTEN}{_docstring(f'AGC for {task.recipe}.py.', task.agc_said)}_base_ = '{task.recipe}.py'\n"
    return text + '\n'.join(_lines('optim_wrapper = ', wrapper)) + '\n'


_SWAP_SAID = '''\
"""Make an existing ResNet-50 config normalizer-free: inherit it, this file and agc.py, and name what they hold.

    _base_ = [
        'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py',
        'nfnet_mm::_base_/nf/{0}.py',
        'nfnet_mm::_base_/nf/agc.py']
    model = _base_.nf_detector
    optim_wrapper = _base_.nf_optim_wrapper  # nf_amp_optim_wrapper if the config's is an AmpOptimWrapper

Nothing is frozen and the weights are random until model['backbone'] is updated: docs/swapping.md has the whole. For a
backbone read by anything but an FPN of all four stages, tools/swap_backbone.py works out the channels.
"""
'''
_SWAP_MODELS = """
# mmdet: any detector whose neck reads four stages, as FPN does
nf_detector = dict(data_preprocessor=nf_rgb, backbone=dict(**nf_backbone), neck=dict(in_channels=nf_widths))
# mmseg: "d8" segmentors, whose decode head reads stage 4 and auxiliary head stage 3, both at stride 8
nf_segmentor = dict(
    data_preprocessor=nf_rgb, pretrained=None,
    backbone=dict(**nf_backbone, strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4)),
    decode_head=dict(in_channels=nf_widths[3]), auxiliary_head=dict(in_channels=nf_widths[2]))
# mmpretrain: classifiers; its configs normalise images so already
nf_classifier = dict(backbone=dict(**nf_backbone, out_indices=(4, )), head=dict(in_channels={0}))
"""


def swap_base(network: Network) -> str:
    """The file of configs/_base_/nf by which a user's own config takes a network."""
    text = _WRITTEN + _SWAP_SAID.format(network.name)
    text += f'nf_backbone = {_python(dict(_delete_=True, **network.cfg))}\n'
    text += f'nf_widths = {list(network.arch.widths)}\n'
    text += 'nf_rgb = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True)\n'
    return text + _SWAP_MODELS.format(network.channels(4))


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
    backbone['init_cfg'] = _start()
    model: dict[str, Any] = dict(backbone=backbone)
    extra = ''
    if task is COCO:
        model = dict(backbone=dict(_delete_=True, **backbone), neck=dict(in_channels=list(found.arch.widths)))
        extra = "sync_bn = 'torch'\n" if recipe.batch_norm else ''
    elif recipe.batch_norm:
        norm = dict(type='BN')
        model['decode_head'] = dict(norm_cfg=dict(_delete_=True, **norm) if task is VOC else norm)
    base = f'{task.recipe}_agc' if task.agc and not recipe.batch_norm else task.recipe
    text = _WRITTEN + _docstring(said, more, expects)
    text += f"_base_ = './_base_/recipe/{base}.py'\n\n{_comment(_weights_hint(recipe))}weights = None\n{extra}"
    return text + '\n'.join(_lines('model = ', model)) + '\n'


def fine_tuning(recipe: FineTuning) -> str:
    """The config of a fine-tuning on a user's own data."""
    text = _WRITTEN + _docstring(recipe.summary, recipe.said) + f"_base_ = './{recipe.base}'\n"
    text += _comment(f'SET ME: the folder that holds {recipe.layout}.') + "data_root = 'data/own'\n"
    if recipe.num_classes:
        text += f'num_classes = {recipe.num_classes}  # all that depends on it follows, by tools/train.py\n'
    text += "# deepmind/F0, or a file of DeepMind's, timm's or ours; None starts from random weights.\nweights = None\n"
    return text + ''.join('\n'.join(_lines(f'{key} = ', value)) + '\n' for key, value in recipe.settings.items())


def _weights_hint(recipe: TransferRecipe) -> str:
    key = recipe.found.key
    which = 'a classifier of ours'
    if recipe.found.family == 'NFNet':
        which = f'deepmind/{key}, timm/dm_nfnet_{key.lower()}, or {which}'
    elif recipe.network == 'nf_resnet50':
        which += ", or timm/nf_resnet50, whose shape is another: with them set depth='timm/nf_resnet50'"
    random = ', for which 22,500 steps are too few' if recipe.task is COCO else ''
    start = 'SET ME, or --cfg-options weights=FILE: the ImageNet weights to start from:'
    return f'{start} {which}. None starts from random weights{random}.'


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
        elif isinstance(value, dict) and before is not None:  # mmengine asks for it over anything but a dict
            changed[key] = dict(_delete_=True, **value)
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
        case str() if value.startswith('$'):
            return value[1:]
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
    files = {**config_files(), **zoo_files(), **reproduce_files(), **result_files(ROOT), **scaling_files(ROOT)}
    if find_spec('mmdet') and find_spec('mmseg'):  # whose models are built to be counted
        files |= cost_files(ROOT)
    else:
        print('left as it is, for it needs mmdet and mmseg: docs/training_cost.md')
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
