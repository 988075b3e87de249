"""Adapt the rest of a config to a new backbone: normalisation, optimizer wrapper, options that name parameters."""

import copy
import re
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from typing import Any

from nfnet_mm.engine import NFOptimWrapperConstructor
from nfnet_mm.engine.agc import check_agc
from nfnet_mm.errors import UserError

from .last_layers import last_layers
from .parameter_names import Swapped, translate_keys, translate_name
from .tree import Notes, listed, of_no_teacher, type_name, walk

# ImageNet's, of the RGB channels: what every public NF weight was trained with.
MEAN, STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]
# The wrapper that clips adaptively and is otherwise the same.
WITH_AGC = {'OptimWrapper': 'nfnet_mm.AGCOptimWrapper', 'AmpOptimWrapper': 'nfnet_mm.AmpAGCOptimWrapper'}
# Names of a ResNet's parts, wherever a config has them.
RESNET_PART = re.compile(r'(\bbackbone\.(conv1|bn1|stem\.\d)|\blayer[1-4])(?!\w)')


def set_normalisation(cfg: dict[str, Any], channels: set[int], notes: Notes) -> None:
    """RGB, ImageNet's mean and deviation, in every data preprocessor of the model and the one at the top.

    Images of another number of channels (``channels``: those of the backbones) keep theirs, and so do a single mean for
    all channels, as of grayscale pictures, and images that are not read from files: mmpretrain's CIFAR is RGB already,
    so that no flag tells the order of their channels.

    Raises:
        UserError: there is no data preprocessor.
    """
    for item in walk({key: value for key, value in cfg.items() if key.endswith('dataloader')}):
        if type_name(item.value) == 'Normalize':
            twice = 'whose result the data_preprocessor normalises again: leave one of them out'
            notes.warn(f"{item.path} is a 'Normalize', {twice}")
    top = {key: cfg[key] for key in ('model', 'data_preprocessor') if key in cfg}
    found = [
        (item.path, item.value)
        for item in walk(top)
        if item.key == 'data_preprocessor'
        and isinstance(item.value, dict)
        and not isinstance(item.value.get('data_preprocessor'), dict)  # it leaves the normalisation to the one inside
    ]
    if not found:
        raise UserError('the config has no data_preprocessor, so nothing says how images are normalised: state one')
    if channels != {3}:  # whose mean they are, only the user knows
        for path, preprocessor in found:
            told = f'mean {preprocessor.get("mean")}, std {preprocessor.get("std")}'
            why = f'as the backbone has in_channels={max(channels - {3})}'
            notes.add(f'{path}: {told} stay, {why}: check that they are of your images')
        return
    loader, expected = cfg.get('train_dataloader'), f'RGB, mean {MEAN}, std {STD}'
    from_files = not loader or any('LoadImageFromFile' in type_name(item.value) for item in walk(loader))
    for path, preprocessor in found:
        # mmpretrain's name of the switch, and mmdet's and mmseg's
        kind = str(preprocessor.get('type', ''))
        pretrains = cfg.get('default_scope') == 'mmpretrain' or any(w in kind for w in ('Cls', 'SelfSup', 'ReID'))
        flag = 'to_rgb' if 'to_rgb' in preprocessor or pretrains else 'bgr_to_rgb'
        new = dict(mean=MEAN, std=STD, **{flag: True})
        if preprocessor.get('rgb_to_bgr'):
            new['rgb_to_bgr'] = False
        before = {key: preprocessor.get(key) for key in ('mean', 'std', flag)}
        if all(preprocessor.get(key) == value for key, value in new.items()):
            continue
        if len(before['mean'] or ()) == 1:
            notes.warn(f'{path}: {listed(before)} stay, one for all channels; public weights expect {expected}')
            continue
        # a mean in the order BGR is of BGR images, whatever reads them
        if not from_files and list(before['mean'] or ()) != MEAN[::-1]:
            why = 'as no LoadImageFromFile reads the training images, which may be RGB already'
            notes.warn(f'{path}: {listed(before)} stay, {why}; public weights expect {expected}')
            continue
        preprocessor.update(copy.deepcopy(new))
        notes.add(f'{path}: {listed(before)} -> {expected}')
        for where, what in _teachers(cfg['model']):
            notes.warn(f'{where} stays {what!r}, and reads images normalised so, too')


def _teachers(model: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """(place, what is there) of the teachers of distillation: a model, or the path or content of its config."""
    for item in walk(dict(model=model), enter=of_no_teacher):
        if item.key == 'teacher_config' and isinstance(item.value, str):
            yield item.path, item.value
        elif not of_no_teacher(item) and isinstance(item.value, dict) and not {'type', 'model'}.isdisjoint(item.value):
            yield item.path, item.value.get('type', 'a model')


def _unscoped(kind: Any) -> Any:
    """A type of mmengine's by its bare name, which the frameworks know too."""
    return re.sub(r'^(mmengine|mmdet|mmseg|mmpretrain)\.', '', kind) if isinstance(kind, str) else kind


def set_agc(cfg: dict[str, Any], clipping: float, notes: Notes) -> None:
    """The optimizer wrapper that clips adaptively; everything else in it stays.

    Raises:
        UserError: the wrapper, its constructor or its options have no counterpart, or ``clipping`` is not positive.
    """
    check_agc(clipping, 1e-3)
    wrapper = cfg.get('optim_wrapper')
    if wrapper is None:
        notes.add('the config has no optim_wrapper: none to replace')
        return
    kind = _unscoped(wrapper.get('type', 'OptimWrapper'))
    if kind not in (*WITH_AGC, *WITH_AGC.values()):
        raise UserError(f'optim_wrapper.type={kind!r} has no form with AGC; {", ".join(WITH_AGC)} have')
    builder = _unscoped(wrapper.get('constructor'))
    if builder not in (None, 'DefaultOptimWrapperConstructor', 'nfnet_mm.NFOptimWrapperConstructor'):
        what = f'optim_wrapper.constructor={builder!r} knows the layers of another network'
        raise UserError(f"{what}, and AGC needs 'nfnet_mm.NFOptimWrapperConstructor' in its place")
    paramwise, optimizer = wrapper.get('paramwise_cfg'), wrapper.get('optimizer')
    try:
        NFOptimWrapperConstructor(dict(optimizer=optimizer), paramwise)
    except (TypeError, ValueError) as error:
        reason = str(error)
        if 'base_wd' in reason:  # mmengine's own name for it
            reason = f'paramwise_cfg={paramwise!r} multiplies the weight decay, which {optimizer=}'
            reason += ' does not state: add weight_decay to it'
        raise UserError(f'optim_wrapper: {reason}') from None
    wrapper.update(type=WITH_AGC.get(kind, kind), constructor='nfnet_mm.NFOptimWrapperConstructor')
    wrapper['agc'] = dict(clipping=clipping, eps=1e-3)
    stays = f'optimizer {listed(optimizer or {})} stays'
    if base := (cfg.get('auto_scale_lr') or {}).get('base_batch_size'):
        stays += f', for a total batch of {base}'
    notes.add(f'optim_wrapper: {kind} -> {wrapper["type"]}, clipping {clipping}; {stays}')
    if wrapper.get('clip_grad'):
        notes.add(f'optim_wrapper.clip_grad ({listed(wrapper["clip_grad"])}) stays, and applies after AGC')
    if 'Classifier' in str(cfg['model'].get('type')):
        notes.add("AGC leaves the last weights of the classifier's head unclipped, and the log names them")
    else:
        _exclude_last_layers(cfg['model'], wrapper, notes)


def _exclude_last_layers(model: dict[str, Any], wrapper: dict[str, Any], notes: Notes) -> None:
    """Name the last layers of a detector's or segmentor's heads in ``agc_exclude``, besides what is there."""
    paramwise, where = wrapper.get('paramwise_cfg') or {}, 'optim_wrapper.paramwise_cfg.agc_exclude'
    given = paramwise.get('agc_exclude') or ()
    given = [given] if isinstance(given, str) else list(given)
    names, unknown = last_layers(model)
    names = [name for name in names if not any(fnmatchcase(name, pattern) for pattern in given)]
    if names:
        wrapper['paramwise_cfg'] = dict(paramwise, agc_exclude=[*given, *names])
        why = 'the last layers of the heads, which train better unclipped (NFNets, section 4.1)'
        notes.add(f'{where}: {", ".join(names)}: {why}')
    if unknown or not (names or given):
        heads = f'every weight of {", ".join(unknown)}' if unknown else 'every weight'
        notes.add(f'AGC clips {heads}, the last layers too: name those in {where}')


def set_parameter_names(cfg: dict[str, Any], parts: Sequence[Swapped], notes: Notes) -> None:
    """What the optimizer wrapper says of the ResNet's parameters by their names."""
    paramwise = (cfg.get('optim_wrapper') or {}).get('paramwise_cfg') or {}
    where = 'optim_wrapper.paramwise_cfg'
    if keys := paramwise.get('custom_keys'):
        paramwise['custom_keys'], told = translate_keys(keys, parts, f'{where}.custom_keys: ')
        notes += told
    exclude = paramwise.get('agc_exclude') or ()
    names = [exclude] if isinstance(exclude, str) else list(exclude)
    new = [translate_name(name) for name in names]
    if new != names:
        paramwise['agc_exclude'] = new
        notes.add(f'{where}.agc_exclude: {exclude} -> {new}')


def set_module_names(cfg: dict[str, Any], parts: Sequence[Swapped], notes: Notes) -> None:
    """The other options that name modules: what acts on the backbone's by mmengine, and a note on any others."""
    places = tuple(place for part in parts for place in part.places)
    inside = tuple(f'{place}.' for place in places)

    def take_out(option: str, whole: tuple[str, ...] = ()) -> list[str]:
        value = cfg.get(option) or ()
        names = [value] if isinstance(value, str) else list(value)
        gone = [name for name in names if isinstance(name, str) and (name.startswith(inside) or name in whole)]
        if gone:
            cfg[option] = [name for name in names if name not in gone] or None
        return gone

    # mmengine wraps the forward of a whole stage, which ours do not call: the backbone's own option is the same
    gone = take_out('activation_checkpointing')
    for part in parts:
        if any(name.startswith(f'{place}.') for name in gone for place in part.places):
            part.new.get('backbone', part.new)['with_cp'] = True
            where = f'model.{part.places[0]}.with_cp=True'
            notes.add(f'activation_checkpointing: {gone} -> {where}, which recomputes each block')
    if gone := take_out('efficient_conv_bn_eval', places):
        notes.add(f'efficient_conv_bn_eval: {gone} dropped: there is no BatchNorm')
    for i, hook in enumerate(cfg.get('custom_hooks') or ()):
        if isinstance(hook, dict) and 'PreciseBN' in str(hook.get('type')):
            notes.add(f'custom_hooks.{i}: {hook["type"]!r} has no BatchNorm of the backbone to work on')
    for item in walk({key: value for key, value in cfg.items() if key != 'optim_wrapper'}, enter=of_no_teacher):
        for path, name in ((item.where, item.key), (item.path, item.value)):  # a text may be a key too
            if isinstance(name, str) and RESNET_PART.search(name) and of_no_teacher(item):
                notes.warn(f'{path} = {name!r} names a part of the ResNet; there is none of that name now')
