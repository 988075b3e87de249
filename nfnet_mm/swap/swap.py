"""Put a normalizer-free backbone in the place of a ResNet, in a config of mmdet, mmseg or mmpretrain.

Works on plain dicts and imports none of the frameworks: see :func:`swap_config`. Files are in ``config_files``.
"""

import copy
from collections.abc import Iterator
from typing import Any

from nfnet_mm.errors import UserError, short
from nfnet_mm.models.backbones.arch import FAMILIES, Network, find_network, network_names

from .backbone import Swap
from .parameter_names import swapped_parts
from .settings import set_agc, set_module_names, set_normalisation, set_parameter_names
from .tree import Item, Notes, module_type, of_no_teacher, type_name, walk

# Types that are one stem of stride 4 and four stages, whose channels follow from depth and base_channels.
RESNETS = ('ResNet', 'ResNetV1b', 'ResNetV1c', 'ResNetV1d', 'ResNeXt', 'ResNeSt', 'Res2Net', 'SEResNet', 'SEResNeXt')
# Near relatives of these backbones that are not, and why.
_DETECTORS = 'its switchable atrous convs and the features fed back into it (RFP) have no counterpart'
REASONS = {
    'TridentResNet': 'its last stage runs three times with shared weights and different dilations',
    'DetectoRS_ResNet': _DETECTORS,
    'DetectoRS_ResNeXt': _DETECTORS,
    'ICNet': "it calls ResNet's layers one by one, at two image sizes",
    'ResNet_CIFAR': 'its stem keeps the image size, while every NF stem divides it',
}


def swap_config(
    cfg: dict[str, Any],
    backbone: str,
    weights: str | None = None,
    clipping: float = 0.01,
    strict: bool = False,
    weights_channels: int = 3,
) -> tuple[dict[str, Any], list[str]]:
    """A config with every ResNet of its model replaced, and all that follows from it.

    The channels that necks and heads read, the input normalisation, and the optimizer wrapper (AGC's, with the same
    optimizer, accumulation and parameter-wise rules) change; what cannot be converted is refused.

    Args:
        cfg: the whole config, of plain dicts; not changed.
        backbone: a name, see :func:`~nfnet_mm.models.backbones.arch.find_network`.
        weights: file of weights to start the backbone from, which is not read here; random without, and then nothing
            is frozen.
        clipping: of AGC.
        strict: refuse what the ResNet computed besides (``dcn``, ``plugins``) instead of leaving it out with a warning.
        weights_channels: of the images that the weights were trained with. Where those of the config have another
            number, each of their channels starts from the mean kernel.

    Returns:
        the new config, and what changed and was left behind, a line each.

    Raises:
        UserError: something in the config has no counterpart; the message names it and quotes its value.

    Example:
        >>> cfg = dict(model=dict(
        ...     type='RetinaNet', data_preprocessor=dict(type='DetDataPreprocessor'),
        ...     backbone=dict(type='ResNet', depth=50, out_indices=(1, 2, 3), frozen_stages=1),
        ...     neck=dict(type='FPN', in_channels=[512, 1024, 2048], out_channels=256)))
        >>> new, notes = swap_config(cfg, 'nfnet_f0')
        >>> new['model']['backbone']
        {'type': 'nfnet_mm.NFNet', 'arch': 'F0', 'out_indices': (1, 2, 3), 'frozen_stages': -1}
        >>> notes[3]
        'model.neck.in_channels: [512, 1024, 2048] -> [512, 1536, 1536]'
    """
    network = find_network(backbone)
    if network.arch.method != 'nf':
        raise UserError(f'backbone {backbone!r} is a baseline of the papers: a normalizer-free network has to be named')
    swap = Swap(network, cfg.get('default_scope'), weights, weights_channels, strict)
    notes = swap.notes
    if not isinstance(cfg.get('model'), dict):
        raise UserError(f'the config has no model to change (model={cfg.get("model")!r})')
    cfg = copy.deepcopy(cfg)
    model = cfg['model']
    hosts = list(backbone_hosts(model, 'model'))
    resnets = [host for host in hosts if is_resnet(host.value)]
    if not resnets:
        raise UserError(_no_resnet(hosts, model))
    for host in resnets:
        for option in [option for option, value in host.value.items() if value is None]:
            del host.value[option]  # its default
    shipped = copy.deepcopy(model)
    for host in hosts:
        now = host.owner[host.key]  # one dict may stand at two places
        if not is_resnet(now):
            notes.add(f'{host.path} stays {now["type"]!r}')
            continue
        swap.replace(host)
        _drop_weights_around(host, model, notes)
    _leave_the_run(cfg, notes)
    parts = list(swapped_parts(shipped, model, cfg.get('default_scope')))
    set_normalisation(cfg, {host.owner[host.key].get('in_channels', 3) for host in hosts}, notes)
    set_agc(cfg, clipping, notes)
    set_parameter_names(cfg, parts, notes)
    set_module_names(cfg, parts, notes)
    for path, kind in _resnets(model):
        notes.warn(f"{path} stays {kind!r}: backbones under the key backbone are replaced, but no teacher's")
    if left := _batch_norms(model):
        notes.add(f'BatchNorm stays in {", ".join(left)}')
    _tell_namesake(swap.network, notes)
    return cfg, notes


def is_resnet(cfg: dict[str, Any]) -> bool:
    """Whether a backbone is one that can be replaced.

    Raises:
        UserError: its type is a class.
    """
    return module_type(cfg)[1] in RESNETS


def _is_backbone(item: Item) -> bool:
    return (
        item.key in ('backbone', 'backbone_cfg')
        and isinstance(item.value, dict)
        and 'type' in item.value
        # which holds the backbone
        and not (type_name(item.value) == 'BiSeNetV1' and 'type' in (item.value.get('backbone_cfg') or {}))
    )


def backbone_hosts(node: Any, path: str) -> Iterator[Item]:
    """Each backbone in a model and what holds it, the outermost of each branch; no teacher's, no stage's own."""

    def enter(item: Item) -> bool:
        return of_no_teacher(item) and not _is_backbone(item) and type_name(item.value) != 'NFStage'

    return filter(_is_backbone, walk(node, path, enter))


def _resnets(model: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """(place, type) of each ResNet in a model, whatever its key."""
    for item in walk(dict(model=model)):
        if type_name(item.value) in RESNETS:
            yield item.path, item.value['type']


def _batch_norms(model: dict[str, Any]) -> list[str]:
    """The modules that state a BatchNorm, those of one list together."""
    norms = [(item.where, type_name(item.value)) for item in walk(model) if item.key == 'norm_cfg']
    places = [where.split('.') for where, kind in norms if 'BN' in kind or 'BatchNorm' in kind]
    return sorted({'.'.join(part for part in place if not part.isdecimal()) or 'model' for place in places})


def _no_resnet(hosts: list[Item], model: dict[str, Any]) -> str:
    if not hosts:
        for path, kind in _resnets(model):
            why = 'so that what reads it cannot be told: only backbones under that key can be replaced'
            return f'{path} is a {kind!r}, but not under the key backbone, {why}'
        return 'the model has no backbone: nothing to replace'
    path, (scope, kind) = hosts[0].path, module_type(hosts[0].value)
    if scope == 'nfnet_mm':
        baseline = kind in FAMILIES and next(iter(FAMILIES[kind][1].values())).method != 'nf'
        what = 'a baseline of the papers' if baseline else 'normalizer-free already'
        return f'{path} of type {hosts[0].value["type"]!r} is {what}: swap the config it came from'
    why = REASONS.get(kind, 'it is not of the ResNet family, and its options have no counterpart')
    return f'{path} of type {kind!r} cannot be replaced: {why}. What can: {", ".join(RESNETS)}'


def _drop_weights_around(host: Item, model: dict[str, Any], notes: Notes) -> None:
    """Another network's weights, for the whole of what holds the backbone."""
    for item in walk(dict(model=model)):
        if not isinstance(item.value, dict) or not f'{host.where}.'.startswith(f'{item.path}.'):
            continue
        for option in ('pretrained', 'init_cfg'):
            value = item.value.get(option)
            if value and (option == 'pretrained' or 'checkpoint' in str(value)):
                item.value[option] = None
                what = value.get('checkpoint', value) if isinstance(value, dict) else value
                notes.add(f'{item.path}.{option} = {short(what)} dropped')


def _leave_the_run(cfg: dict[str, Any], notes: Notes) -> None:
    """The ResNet's run and its weights are not gone on with."""
    if cfg.get('load_from'):
        notes.add(f'load_from = {cfg["load_from"]!r} dropped')
        cfg['load_from'] = None
    if cfg.get('resume'):
        cfg['resume'] = False
        notes.add('resume = True -> False: there is no run of the new network to resume yet')
    if cfg.get('work_dir'):
        why = 'resuming in it finds the checkpoints of the ResNet, so name another'
        notes.warn(f'work_dir = {cfg["work_dir"]!r} stays: {why}')


def _tell_namesake(network: Network, notes: Notes) -> None:
    """Of two networks of one name, the paper's and timm's, say which was taken."""
    paper = network.name.removeprefix('timm/')
    if not {paper, f'timm/{paper}'} <= set(network_names()):
        return
    if network.name == paper:
        notes.add(f"{paper} is the paper's network, for the authors' weights; timm's of that name is 'timm/{paper}'")
    else:
        notes.add(f"{network.name} is timm's network, for timm's weights; the paper's of that name is {paper!r}")
