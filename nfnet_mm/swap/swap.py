"""Put a normalizer-free backbone in the place of a ResNet, in a config of mmdet, mmseg or mmpretrain.

Works on plain dicts and imports none of the frameworks: see :func:`swap_config`. Files are in ``config_files``.
"""

import copy
from collections.abc import Iterator
from typing import Any

from nfnet_mm.errors import UserError
from nfnet_mm.models.backbones.arch import find_network

from .parameter_names import swapped_parts
from .rewire import assign, mapped, modules, rewire_bisenet, rewire_head
from .settings import set_agc, set_module_names, set_normalisation, set_parameter_names

__all__ = ['backbone_hosts', 'is_resnet', 'swap_config']

# Types that are one stem of stride 4 and four stages, whose channels follow from depth and base_channels.
RESNETS = ('ResNet', 'ResNetV1b', 'ResNetV1c', 'ResNetV1d', 'ResNeXt', 'ResNeSt', 'Res2Net', 'SEResNet', 'SEResNeXt')
# ResNet's next stage as a module of a roi_head (C4).
SHARED_HEADS = ('ResLayer', 'ResLayerExtraNorm')
# Near relatives of these backbones that are not, and why.
REASONS = {
    'TridentResNet': 'its last stage runs three times with shared weights and different dilations',
    'DetectoRS_ResNet': 'its switchable atrous convs and the features fed back into it (RFP) have no counterpart',
    'DetectoRS_ResNeXt': 'its switchable atrous convs and the features fed back into it (RFP) have no counterpart',
    'ICNet': "it calls ResNet's layers one by one, at two image sizes",
    'ResNet_CIFAR': 'its stem keeps the image size, while every NF stem divides it',
}

# What becomes of a ResNet's options. CARRIED: see _backbone_cfg.
CARRIED = (
    'type',
    'depth',
    'in_channels',
    'out_indices',
    'frozen_stages',
    'with_cp',
    'strides',
    'dilations',
    'drop_path_rate',
    'num_stages',
)
# The variant has its own.
SHAPE = (
    'base_channels',
    'stem_channels',
    'expansion',
    'deep_stem',
    'avg_down',
    'groups',
    'base_width',
    'width_per_group',
    'scales',
    'radix',
    'reduction_factor',
    'avg_down_stride',
    'se_ratio',
)
# Nothing to norm, or another network's weights.
MOOT = ('norm_cfg', 'norm_eval', 'style', 'conv_cfg', 'act_cfg', 'zero_init_residual', 'init_cfg', 'pretrained')
# What a conv is there does not matter here, where every weight is standardised.
PLAIN_CONVS = (None, 'Conv', 'Conv2d', 'ConvWS')
# What the ResNet computed besides: left out with a warning, or refused if the user is strict.
EXTRAS = {'dcn': 'deformable convs in its stages', 'plugins': 'modules inside its blocks'}
NEAREST = {
    'contract_dilation': 'the first block of a dilated stage dilates as much as the others',
    'multi_grid': "the last stage's blocks all dilate alike",
}


def swap_config(
    cfg: dict[str, Any], backbone: str, weights: str | None = None, clipping: float = 0.01, strict: bool = False
) -> tuple[dict[str, Any], list[str]]:
    """A config with every ResNet of its model replaced, and all that follows from it.

    The channels that necks and heads read, the input normalisation, and the optimizer wrapper (AGC's, with the same
    optimizer, accumulation and parameter-wise rules) change; what cannot be converted is refused.

    Args:
        cfg: the whole config, of plain dicts; not changed.
        backbone: a name, see :func:`~nfnet_mm.models.backbones.arch.find_network`.
        weights: file of weights to start the backbone from; random without.
        clipping: of AGC.
        strict: refuse what the ResNet computed besides (``dcn``, ``plugins``) instead of leaving it out with a warning.

    Returns: the new config, and what changed and was left behind, a line each.

    Raises:
        UserError: something in the config has no counterpart; the message names it and quotes its value.

    Example:
        >>> cfg = dict(model=dict(
        ...     type='RetinaNet', data_preprocessor=dict(type='DetDataPreprocessor'),
        ...     backbone=dict(type='ResNet', depth=50, out_indices=(1, 2, 3), frozen_stages=1),
        ...     neck=dict(type='FPN', in_channels=[512, 1024, 2048], out_channels=256)))
        >>> new, notes = swap_config(cfg, 'nfnet_f0')
        >>> new['model']['backbone']
        {'type': 'nfnet_mm.NFNet', 'arch': 'F0', 'out_indices': (1, 2, 3), 'frozen_stages': 1}
        >>> notes[2]
        'model.neck.in_channels: [512, 1024, 2048] -> [512, 1536, 1536]'
    """
    variant, notes = find_network(backbone), []
    if not isinstance(cfg.get('model'), dict):
        raise UserError(f'the config has no model to change (model={cfg.get("model")!r})')
    cfg = copy.deepcopy(cfg)
    model = cfg['model']
    hosts = list(backbone_hosts(model, 'model'))
    if not any(is_resnet(host[key]) for _, host, key, _ in hosts):
        raise UserError(_no_resnet(hosts, model))
    for _, host, key, _ in hosts:
        if is_resnet(host[key]):  # an option of None is its default
            host[key] = {option: value for option, value in host[key].items() if value is not None}
    shipped = copy.deepcopy(model)
    for path, host, key, above in hosts:
        if not is_resnet(host[key]):
            notes.append(f'{path}.{key} stays {host[key].get("type")!r}')
            continue
        _swap_one(host, key, path, variant, cfg.get('default_scope'), weights, strict, notes)
        for owner, where in [(model, 'model'), *above]:
            for option in ('pretrained', 'init_cfg'):
                # another network's weights, for the whole of what holds the backbone
                value = owner.get(option)
                if value and (option == 'pretrained' or 'checkpoint' in str(value)):
                    owner[option] = None
                    notes.append(f'{where}.{option} = {_brief(value)} dropped')
    if cfg.get('load_from'):
        notes.append(f'load_from = {cfg["load_from"]!r} dropped')
        cfg['load_from'] = None
    if cfg.get('resume'):
        cfg['resume'] = False
        notes.append('resume = True -> False: there is no run of the new network to resume yet')
    if cfg.get('work_dir'):
        notes.append(
            f'WARNING: work_dir = {cfg["work_dir"]!r} stays: resuming in it finds the checkpoints of the '
            'ResNet, so name another'
        )
    parts = list(swapped_parts(shipped, model, cfg.get('default_scope')))
    set_normalisation(cfg, {host[key].get('in_channels', 3) for _, host, key, _ in hosts}, notes)
    set_agc(cfg, clipping, notes)
    set_parameter_names(cfg, parts, notes)
    set_module_names(cfg, parts, notes)
    notes.extend(
        f"WARNING: {where} stays {kind!r}: backbones under the key backbone are replaced, but no teacher's"
        for where, kind in _resnets(model, 'model')
    )
    left = sorted({where for where, kind in _norms(model, '') if 'BN' in kind or 'BatchNorm' in kind})
    if left:
        notes.append(f'BatchNorm stays in {", ".join(left)}')
    return cfg, notes


def _brief(value: Any) -> str:
    text = str(value.get('checkpoint', value) if isinstance(value, dict) else value)
    return text if len(text) < 60 else f'{text[:57]}...'


def _kind(cfg: dict[str, Any]) -> tuple[str | None, str]:
    """(scope, name) of a module's type."""
    kind = cfg.get('type')
    if not isinstance(kind, str):
        raise UserError(
            f"type={kind!r} is a class, of a config in the style of mmengine's read_base; the old style, "
            'with types as text, can be converted'
        )
    scope, _, name = kind.rpartition('.')
    return scope or None, name


def is_resnet(cfg: dict[str, Any]) -> bool:
    """Whether a backbone is one that can be replaced."""
    return _kind(cfg)[1] in RESNETS


def backbone_hosts(node: Any, path: str, above=()) -> Iterator[tuple[str, dict, str, tuple]]:
    """(path, dict, key, dicts around it) of each backbone in a model, the outermost of each branch."""
    if isinstance(node, (list, tuple)):
        for i, item in enumerate(node):
            yield from backbone_hosts(item, f'{path}.{i}', above)
    if not isinstance(node, dict) or node.get('type') == 'nfnet_mm.NFStage':  # whose backbone is a description only
        return
    above = (*above, (node, path))
    for key, value in node.items():
        if key in ('backbone', 'backbone_cfg') and isinstance(value, dict) and 'type' in value:
            inner = list(backbone_hosts(value, f'{path}.{key}', above)) if _kind(value)[1] == 'BiSeNetV1' else []
            yield from inner or [(path, node, key, above)]
        elif isinstance(value, (dict, list, tuple)) and not key.startswith('teacher'):
            yield from backbone_hosts(value, f'{path}.{key}', above)


def _resnets(node: Any, path: str) -> Iterator[tuple[str, str]]:
    """(place, type) of each ResNet in a model, whatever its key."""
    if isinstance(node, (list, tuple)):
        node = dict(enumerate(node))
    if isinstance(node, dict):
        if str(node.get('type')).rpartition('.')[2] in RESNETS:
            yield path, node['type']
        for key, value in node.items():
            yield from _resnets(value, f'{path}.{key}')


def _no_resnet(hosts, model) -> str:
    if not hosts:
        for where, kind in _resnets(model, 'model'):
            return (
                f'{where} is a {kind!r}, but not under the key backbone, so that what reads it cannot be told: '
                'only backbones under that key can be replaced'
            )
        return 'the model has no backbone: nothing to replace'
    path, host, key, _ = hosts[0]
    scope, kind = _kind(host[key])
    if scope == 'nfnet_mm':
        return f'{path}.{key} of type {host[key]["type"]!r} is normalizer-free already: swap the config it came from'
    why = REASONS.get(kind, 'it is not of the ResNet family, and its options have no counterpart')
    return f'{path}.{key} of type {kind!r} cannot be replaced: {why}. What can: {", ".join(RESNETS)}'


def _swap_one(host, key, path, variant, default_scope, weights, strict, notes) -> None:
    """Replace ``host[key]`` and let the modules beside it read the new channels."""
    old = host[key]
    depth, scope = old.get('depth', 50), _kind(old)[0] or default_scope
    indices = tuple(old.get('out_indices') or ((3,) if scope == 'mmpretrain' else range(old.get('num_stages', 4))))
    base = old.get('base_channels', 64) * (old.get('expansion') or (1 if str(depth) in ('18', '34') else 4))
    was = [base * 2**i for i in indices]
    necks = modules(host.get('neck'))
    # unless a neck reads each of several outputs, by its list of channels, mmpretrain's heads read the last
    each = len(indices) > 1 and any(isinstance(neck.get('in_channels'), (list, tuple)) for _, neck in necks)
    pools = default_scope == 'mmpretrain' or any('Pooling' in _kind(neck)[1] for _, neck in necks)
    if indices[-1] == 3 and pools and not each:
        # a pre-activation network ends with an activation, in some after a conv
        indices = (*indices[:-1], 4)
        notes.append(f'{path}.{key}: its last output becomes 4, behind the last activation, in place of 3')
    cfg = _backbone_cfg(old, f'{path}.{key}', variant, indices, weights, strict, notes)
    levels = list(zip(was, map(variant.channels, indices)))
    host[key] = cfg
    if 'context_channels' in host:
        return rewire_bisenet(host, path, levels, notes)
    for where, neck in necks:
        where = f'{path}.neck{where}'
        if 'in_channels' not in neck:  # pooling and the like: channels pass
            continue
        assign(neck, 'in_channels', mapped(neck['in_channels'], levels, f'{where}.in_channels'), where, notes)
        if _kind(neck)[1] != 'JPU':
            return None
        # JPU hands on what it was given, but for the last level
        widened = neck.get('mid_channels', 512) * len(neck.get('dilations', (1, 2, 4, 8)))
        levels = [*levels[neck.get('start_level', 0) : -1], (widened, widened)]
    for name, value in host.items():
        if name.endswith('head'):
            for i, head in modules(value):
                where, behind = f'{path}.{name}{i}', None
                if head.get('shared_head'):
                    behind = _swap_shared_head(head, f'{where}.shared_head', variant, cfg, strict, notes)
                rewire_head(head, where, levels, notes, behind)


def _swap_shared_head(head, path, variant, backbone, strict, notes) -> list[tuple[int, int]]:
    """Replace a roi_head's ResNet stage by the new network's; returns the levels behind it."""
    old = head['shared_head']
    kind = _kind(old)[1]
    if kind not in SHARED_HEADS:
        raise UserError(f'{path} of type {kind!r} cannot be replaced; what can: {", ".join(SHARED_HEADS)}')
    known = ('type', 'depth', 'stage', 'stride', 'dilation', 'with_cp', 'dcn', *MOOT)
    if unknown := [key for key in old if key not in known]:
        raise UserError(f'{path}.{unknown[0]}={old[unknown[0]]!r} has no counterpart in {variant.name}')
    _leave_out_extras(old, path, variant, strict, notes)
    network = dict(variant.cfg)
    if old.get('with_cp'):
        network['with_cp'] = True
    if 'drop_path_rate' in backbone:  # the schedule runs through the whole network
        network['drop_path_rate'] = backbone['drop_path_rate']
    stage = old.get('stage', 3)
    new = dict(type='nfnet_mm.NFStage', backbone=network, stage=stage, stride=old.get('stride', 2))
    if old.get('dilation', 1) != 1:
        new['dilation'] = old['dilation']
    if 'init_cfg' in backbone:
        new['init_cfg'] = copy.deepcopy(backbone['init_cfg'])
    head['shared_head'] = new
    lost = f', its last norm left out ({kind})' if kind == 'ResLayerExtraNorm' else ''
    notes.append(
        f'{path}: {kind} -> stage {stage} of {variant.name}, stride {new["stride"]}, dilation '
        f'{old.get("dilation", 1)}, and an activation at its end{lost}'
    )
    expansion = 1 if str(old.get('depth', 50)) in ('18', '34') else 4
    return [(64 * expansion * 2**stage, variant.channels(stage))]


def _leave_out_extras(old, path, variant, strict, notes) -> None:
    for key, what in EXTRAS.items():
        if old.get(key):
            lost = f'{path}.{key} ({what}) has no counterpart in {variant.name}'
            if strict:
                raise UserError(f'{lost}: {_brief(str(old[key]))}; without --strict it is left out')
            notes.append(f'WARNING: {lost} and is left out: {_brief(str(old[key]))}')


def _backbone_cfg(old, path, variant, indices, weights, strict, notes) -> dict[str, Any]:
    """The config of the new backbone: the variant's, and what is carried over from the old."""
    known = (*CARRIED, *SHAPE, *MOOT, *NEAREST, *EXTRAS, 'stage_with_dcn')
    if unknown := [key for key in old if key not in known]:
        raise UserError(f'{path}.{unknown[0]}={old[unknown[0]]!r} has no counterpart in {variant.name}')
    _leave_out_extras(old, path, variant, strict, notes)
    conv = old.get('conv_cfg') or {}
    if conv.get('type') not in PLAIN_CONVS:
        raise UserError(
            f'{path}.conv_cfg={conv!r} has no counterpart in {variant.name}, whose convs are weight-standardised'
        )
    cfg = dict(variant.cfg, out_indices=indices)
    for key, default in (('frozen_stages', -1), ('in_channels', 3), ('with_cp', False), ('drop_path_rate', 0.0)):
        if old.get(key, default) != default:
            cfg[key] = old[key]
    # The stem's stride times the first stage's is 4 in ResNets; NF-RegNets divide it otherwise.
    strides = (*old.get('strides', (1, 2, 2, 2)), 1, 1, 1)[:4]
    first = 4 * strides[0] / variant.arch.stem_stride
    if first != int(first):
        raise UserError(
            f'{path}.strides={old["strides"]!r}: the stem of {variant.name} already has stride '
            f'{variant.arch.stem_stride}'
        )
    strides = (int(first), *strides[1:])
    dilations = (*old.get('dilations', ()), 1, 1, 1, 1)[:4]
    if strides[: max(indices) + 1] != variant.arch.strides[: max(indices) + 1]:
        cfg['strides'] = strides
    if dilations != (1, 1, 1, 1):
        cfg['dilations'] = dilations
    if weights:
        cfg['init_cfg'] = dict(type='nfnet_mm.NFPretrained', checkpoint=weights)
        if 'in_channels' in cfg:
            notes.append(
                f'WARNING: {path}.init_cfg: weights for images of another number of channels than '
                f"{cfg['in_channels']} need in_channels='mean' or 'cycle' there: state which"
            )
    carried = ''.join(f', {key} {value}' for key, value in cfg.items() if key not in ('type', 'arch', 'depth'))
    notes.append(f'{path}: {_kind(old)[1]}-{old.get("depth", 50)} -> {variant.name}{carried}')
    if gone := [key for key in MOOT if old.get(key) not in (None, False)]:
        notes.append(f'{path}: dropped {", ".join(gone)}')
    notes.extend(f'{path}: {key} has no counterpart, {what}' for key, what in NEAREST.items() if old.get(key))
    if cfg.get('frozen_stages') == 4 and 4 in indices and variant.arch.final_channels:
        notes.append(
            f'WARNING: {path}: frozen_stages=4 freezes the four stages as before, but not the final conv that '
            f'{variant.name} has behind them'
        )
    if not weights:
        frozen = f', and frozen_stages={cfg["frozen_stages"]} keeps some so' if 'frozen_stages' in cfg else ''
        notes.append(f'{path} starts from random weights{frozen}: name its weights with --weights')
    return cfg


def _norms(node: Any, path: str) -> Iterator[tuple[str, str]]:
    """(place, type) of the norm layers that modules state."""
    if isinstance(node, dict):
        for key, value in node.items():
            if key == 'norm_cfg' and isinstance(value, dict):
                yield path or 'model', str(value.get('type'))
            else:
                yield from _norms(
                    value, path or key if not isinstance(value, (dict, list, tuple)) else f'{path}.{key}'.strip('.')
                )
    elif isinstance(node, (list, tuple)):
        for item in node:
            yield from _norms(item, path)
