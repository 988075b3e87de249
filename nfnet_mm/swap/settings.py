"""What follows from a swapped backbone outside of it: the images' normalisation, the optimizer wrapper, options that
name parameters and modules. On plain dicts.
"""

import copy
import re
from collections.abc import Iterator, Sequence
from typing import Any

from nfnet_mm.engine import NFOptimWrapperConstructor
from nfnet_mm.engine.agc import check_agc
from nfnet_mm.errors import UserError

from .parameter_names import Swapped, translate_keys, translate_name

__all__ = ['MEAN', 'STD', 'set_agc', 'set_module_names', 'set_normalisation', 'set_parameter_names']

# ImageNet's, of the RGB channels: what every public NF weight was trained with.
MEAN, STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]

# The wrapper that clips adaptively and is otherwise the same.
AGC_TWINS = {'OptimWrapper': 'nfnet_mm.AGCOptimWrapper', 'AmpOptimWrapper': 'nfnet_mm.AmpAGCOptimWrapper'}

# Names of a ResNet's parts, wherever a config has them.
RESNET_PART = re.compile(r'(\bbackbone\.(conv1|bn1|stem\.\d)|\blayer[1-4])(?!\w)')


def _preprocessors(node: Any, path: str) -> Iterator[tuple[str, dict]]:
    if isinstance(node, dict):
        for key, value in node.items():
            where = f'{path}.{key}' if path else key
            if key == 'data_preprocessor' and isinstance(value, dict):
                yield where, value
            yield from _preprocessors(value, where)
    elif isinstance(node, (list, tuple)):
        for i, item in enumerate(node):
            yield from _preprocessors(item, f'{path}.{i}')


def _normalizers(node: Any, path: str) -> Iterator[str]:
    """Places of the transforms that normalise images."""
    if isinstance(node, dict):
        if str(node.get('type')).rpartition('.')[2] == 'Normalize':
            yield path
        for key, value in node.items():
            yield from _normalizers(value, f'{path}.{key}')
    elif isinstance(node, (list, tuple)):
        for i, item in enumerate(node):
            yield from _normalizers(item, f'{path}.{i}')


def _types(node: Any) -> Iterator[str]:
    """Every type named in a config."""
    if isinstance(node, dict):
        yield str(node.get('type'))
    if isinstance(node, (dict, list, tuple)):
        for item in node.values() if isinstance(node, dict) else node:
            yield from _types(item)


def _teachers(node: Any, path: str) -> Iterator[tuple[str, str]]:
    """(place, what is there) of the teachers of distillation: a model, or the path or content of its config."""
    if isinstance(node, (list, tuple)):
        node = dict(enumerate(node))
    if isinstance(node, dict):
        for key, value in node.items():
            where = f'{path}.{key}'
            if not str(key).startswith('teacher'):
                yield from _teachers(value, where)
            elif key == 'teacher_config' and isinstance(value, str):
                yield where, value
            elif isinstance(value, dict) and not {'type', 'model'}.isdisjoint(value):
                yield where, value.get('type', 'a model')


def set_normalisation(cfg: dict, channels: set[int], notes: list[str]) -> None:
    """RGB, ImageNet's mean and deviation, in every data preprocessor of the model and the one at the top.

    Images of another number of channels (``channels``: those of the backbones) keep theirs, and so do those that are
    not read from image files: mmpretrain's CIFAR is RGB already, so that no flag tells the order of their channels.
    """
    for key, value in cfg.items():
        if key.endswith('dataloader'):
            notes.extend(
                f"WARNING: {path} is a 'Normalize', whose result the data_preprocessor normalises again: "
                'leave one of them out'
                for path in _normalizers(value, key)
            )
    found = list(_preprocessors(dict(model=cfg['model']), ''))
    if isinstance(cfg.get('data_preprocessor'), dict):
        found.append(('data_preprocessor', cfg['data_preprocessor']))
    # one that wraps another leaves the normalisation to it
    found = [(path, p) for path, p in found if not isinstance(p.get('data_preprocessor'), dict)]
    if not found:
        raise UserError('the config has no data_preprocessor, so nothing says how images are normalised: state one')
    if channels != {3}:  # whose mean they are, only the user knows
        notes.extend(
            f'{path}: mean {p.get("mean")}, std {p.get("std")} stay, as the backbone has in_channels='
            f'{max(channels - {3})}: check that they are of your images'
            for path, p in found
        )
        return
    loader = cfg.get('train_dataloader')
    from_files = not loader or any('LoadImageFromFile' in kind for kind in _types(loader))
    for path, preprocessor in found:
        # mmpretrain's name of the switch, and mmdet's and mmseg's
        kind = str(preprocessor.get('type', ''))
        flag = (
            'to_rgb'
            if 'to_rgb' in preprocessor
            or cfg.get('default_scope') == 'mmpretrain'
            or any(word in kind for word in ('Cls', 'SelfSup', 'ReID'))
            else 'bgr_to_rgb'
        )
        new = dict(mean=MEAN, std=STD, **{flag: True})
        if preprocessor.get('rgb_to_bgr'):
            new['rgb_to_bgr'] = False
        before = {key: preprocessor.get(key) for key in ('mean', 'std', flag)}
        if all(preprocessor.get(key) == value for key, value in new.items()):
            continue
        # a mean in the order BGR is of BGR images, whatever reads them
        if not from_files and list(before['mean'] or ()) != MEAN[::-1]:
            notes.append(
                f'WARNING: {path}: {_brief_dict(before)} stay, as no LoadImageFromFile reads the training '
                f'images, which may be RGB already; public weights expect RGB, mean {MEAN}, std {STD}'
            )
            continue
        preprocessor.update(copy.deepcopy(new))
        notes.append(f'{path}: {_brief_dict(before)} -> RGB, mean {MEAN}, std {STD}')
        notes.extend(
            f'WARNING: {where} stays {what!r}, and reads images normalised so, too'
            for where, what in _teachers(cfg['model'], 'model')
        )


def _brief_dict(values: dict[str, Any]) -> str:
    return ', '.join(f'{key} {value}' for key, value in values.items())


def _unscoped(kind: Any) -> Any:
    """A type of mmengine's by its bare name, which the frameworks know too."""
    return re.sub(r'^(mmengine|mmdet|mmseg|mmpretrain)\.', '', kind) if isinstance(kind, str) else kind


def set_agc(cfg: dict, clipping: float, notes: list[str]) -> None:
    """AGC's twin of the optimizer wrapper; everything else in it stays."""
    try:
        check_agc(clipping, 1e-3)
    except ValueError as error:
        raise UserError(error) from error
    wrapper = cfg.get('optim_wrapper')
    if wrapper is None:
        notes.append('the config has no optim_wrapper: none to replace')
        return
    kind = _unscoped(wrapper.get('type', 'OptimWrapper'))
    if kind not in (*AGC_TWINS, *AGC_TWINS.values()):
        raise UserError(f'optim_wrapper.type={kind!r} has no twin with AGC; {", ".join(AGC_TWINS)} have')
    builder = _unscoped(wrapper.get('constructor'))
    if builder not in (None, 'DefaultOptimWrapperConstructor', 'nfnet_mm.NFOptimWrapperConstructor'):
        raise UserError(
            f'optim_wrapper.constructor={builder!r} knows the layers of another network, and AGC needs '
            "'nfnet_mm.NFOptimWrapperConstructor' in its place"
        )
    paramwise = wrapper.get('paramwise_cfg')
    try:
        NFOptimWrapperConstructor(dict(optimizer=wrapper.get('optimizer')), paramwise)
    except (TypeError, ValueError) as error:
        if 'base_wd' in str(error):  # mmengine's own name for it
            error = (
                f'paramwise_cfg={paramwise!r} multiplies the weight decay, which optimizer='
                f'{wrapper.get("optimizer")!r} does not state: add weight_decay to it'
            )
        raise UserError(f'optim_wrapper: {error}') from None
    wrapper.update(type=AGC_TWINS.get(kind, kind), constructor='nfnet_mm.NFOptimWrapperConstructor')
    wrapper['agc'] = dict(clipping=clipping, eps=1e-3)
    notes.append(
        f'optim_wrapper: {kind} -> {wrapper["type"]}, clipping {clipping}; optimizer '
        f'{_brief_dict(wrapper.get("optimizer") or {})} stays'
    )
    if wrapper.get('clip_grad'):
        notes.append(f'optim_wrapper.clip_grad ({_brief_dict(wrapper["clip_grad"])}) stays, and applies after AGC')
    if 'Classifier' in str(cfg['model'].get('type')):
        notes.append("AGC leaves the last weights of the classifier's head unclipped, and the log names them")
    else:
        notes.append(
            'AGC clips every weight, the last layers too: name those in optim_wrapper.paramwise_cfg.agc_exclude'
        )


def set_parameter_names(cfg: dict, parts: Sequence[Swapped], notes: list[str]) -> None:
    """What the optimizer wrapper says of the ResNet's parameters by their names."""
    paramwise = (cfg.get('optim_wrapper') or {}).get('paramwise_cfg') or {}
    where = 'optim_wrapper.paramwise_cfg'
    if paramwise.get('custom_keys'):
        paramwise['custom_keys'], told = translate_keys(paramwise['custom_keys'], parts)
        for note in told:
            warning = 'WARNING: ' if note.startswith('WARNING: ') else ''
            notes.append(f'{warning}{where}.custom_keys: {note.removeprefix("WARNING: ")}')
    exclude = paramwise.get('agc_exclude') or ()
    names = [exclude] if isinstance(exclude, str) else list(exclude)
    new = [translate_name(name) for name in names]
    if new != names:
        paramwise['agc_exclude'] = new
        notes.append(f'{where}.agc_exclude: {exclude} -> {new}')


def set_module_names(cfg: dict, parts: Sequence[Swapped], notes: list[str]) -> None:
    """The other options that name modules: what acts on the backbone's by mmengine, and a note on any others."""
    places = tuple(place for part in parts for place in part.places)
    inside = tuple(f'{place}.' for place in places)
    for option in ('activation_checkpointing', 'efficient_conv_bn_eval'):
        value = cfg.get(option) or ()
        names = [value] if isinstance(value, str) else list(value)
        # mmengine wraps the forward of a whole stage, which ours do not call: the backbone's own option is the same
        gone = [
            name
            for name in names
            if isinstance(name, str)
            and (name.startswith(inside) or (name in places and option == 'efficient_conv_bn_eval'))
        ]
        if not gone:
            continue
        cfg[option] = [name for name in names if name not in gone] or None
        if option == 'efficient_conv_bn_eval':
            notes.append(f'{option}: {gone} dropped: there is no BatchNorm')
            continue
        for part in parts:
            if any(name.startswith(f'{place}.') for name in gone for place in part.places):
                (part.new if 'backbone' not in part.new else part.new['backbone'])['with_cp'] = True
                notes.append(f'{option}: {gone} -> model.{part.places[0]}.with_cp=True, which recomputes each block')
    for i, hook in enumerate(cfg.get('custom_hooks') or ()):
        if isinstance(hook, dict) and 'PreciseBN' in str(hook.get('type')):
            notes.append(f'custom_hooks.{i}: {hook["type"]!r} has no BatchNorm of the backbone to work on')
    for path, name in _strings({key: value for key, value in cfg.items() if key != 'optim_wrapper'}, ''):
        if RESNET_PART.search(name):
            notes.append(f'WARNING: {path} = {name!r} names a part of the ResNet; there is none of that name now')


def _strings(node: Any, path: str) -> Iterator[tuple[str, str]]:
    """(place, text) of each text in a config, also as a key, but for the teachers of distillation."""
    if isinstance(node, str):
        yield path, node
    elif isinstance(node, dict):
        for key, value in node.items():
            if not str(key).startswith('teacher'):
                yield from _strings(key if RESNET_PART.search(str(key)) else '', path)
                yield from _strings(value, f'{path}.{key}'.strip('.'))
    elif isinstance(node, (list, tuple)):
        for i, item in enumerate(node):
            yield from _strings(item, f'{path}.{i}')
