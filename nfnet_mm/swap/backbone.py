"""The new backbone in a ResNet's place, with what is carried over of its options, and the modules that read it."""

import copy
from dataclasses import dataclass, field
from typing import Any

from nfnet_mm.errors import UserError, short
from nfnet_mm.models.backbones.arch import Network

from .rewire import Levels, modules, rewire, rewire_bisenet, rewire_head
from .tree import Item, Notes, listed, module_type, type_name

# ResNet's next stage as a module of a roi_head (C4).
SHARED_HEADS = ('ResLayer', 'ResLayerExtraNorm')
# What becomes of a ResNet's options. These are carried over:
CARRIED = ('type', 'depth', 'in_channels', 'out_indices', 'frozen_stages', 'with_cp', 'drop_path_rate')
STAGES = ('num_stages', 'strides', 'dilations')
# The new network has its own shape.
SHAPE = ('base_channels', 'stem_channels', 'expansion', 'deep_stem', 'avg_down', 'avg_down_stride')
BLOCKS = ('groups', 'base_width', 'width_per_group', 'scales', 'radix', 'reduction_factor', 'se_ratio')
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
_BACKBONE_OPTIONS = (*CARRIED, *STAGES, *SHAPE, *BLOCKS, *MOOT, *NEAREST, *EXTRAS, 'stage_with_dcn')
_SHARED_HEAD_OPTIONS = ('type', 'depth', 'stage', 'stride', 'dilation', 'with_cp', 'dcn', *MOOT)


def _expansion(resnet: dict[str, Any]) -> int:
    """A stage's channels over those inside its blocks, which are bottlenecks but in the two shallow ResNets."""
    return 1 if str(resnet.get('depth', 50)) in ('18', '34') else 4


@dataclass
class Swap:
    """What is asked of a swap, and what it tells."""

    network: Network
    default_scope: str | None  # of the config
    weights: str | None = None  # a file; random without
    weights_channels: int = 3  # of the images that they were trained with
    strict: bool = False  # refuse what the ResNet computed besides instead of leaving it out
    notes: Notes = field(default_factory=Notes)

    def replace(self, host: Item) -> None:
        """Replace a ResNet, and let the modules beside it read the new channels.

        Args:
            host: the ResNet and what holds it, which is changed.

        Raises:
            UserError: something has no counterpart, or the channels do not fit.
        """
        module, path, old = host.owner, host.where, host.value
        pretrains = (module_type(old)[0] or self.default_scope) == 'mmpretrain'
        indices = tuple(old.get('out_indices') or ((3,) if pretrains else range(old.get('num_stages', 4))))
        base = old.get('base_channels', 64) * (old.get('expansion') or _expansion(old))
        was = [base * 2**i for i in indices]
        necks = modules(module.get('neck'))
        # unless a neck reads each of several outputs, by its list of channels, mmpretrain's heads read the last
        each = len(indices) > 1 and any(isinstance(neck.get('in_channels'), (list, tuple)) for _, neck in necks)
        pools = self.default_scope == 'mmpretrain' or any('Pooling' in module_type(neck)[1] for _, neck in necks)
        if indices[-1] == 3 and pools and not each:
            # a pre-activation network ends with an activation, in some after a conv
            indices = (*indices[:-1], 4)
            self.notes.add(f'{host.path}: its last output becomes 4, behind the last activation, in place of 3')
        module[host.key] = new = self._backbone(old, host.path, indices)
        levels = list(zip(was, map(self.network.channels, indices)))
        if 'context_channels' in module:
            return rewire_bisenet(module, path, levels, self.notes)
        for suffix, neck in necks:
            if 'in_channels' not in neck:  # pooling and the like: channels pass
                continue
            rewire(neck, 'in_channels', f'{path}.neck{suffix}', levels, self.notes)
            if type_name(neck) != 'JPU':
                return None
            # JPU hands on what it was given, but for the last level
            widened = neck.get('mid_channels', 512) * len(neck.get('dilations', (1, 2, 4, 8)))
            levels = [*levels[neck.get('start_level', 0) : -1], (widened, widened)]
        for key, value in module.items():
            for suffix, head in modules(value) if key.endswith('head') else ():
                where = f'{path}.{key}{suffix}'
                behind = self._shared_head(head, f'{where}.shared_head', new) if head.get('shared_head') else None
                rewire_head(head, where, levels, self.notes, behind)
        return None

    def _shared_head(self, head: dict[str, Any], path: str, backbone: dict[str, Any]) -> Levels:
        """Replace a roi_head's ResNet stage by the new network's; returns the levels behind it."""
        old = head['shared_head']
        kind = module_type(old)[1]
        if kind not in SHARED_HEADS:
            raise UserError(f'{path} of type {kind!r} cannot be replaced; what can: {", ".join(SHARED_HEADS)}')
        self._check_options(old, path, _SHARED_HEAD_OPTIONS)
        network = self.network.cfg
        if old.get('with_cp'):
            network['with_cp'] = True
        if 'drop_path_rate' in backbone:  # the schedule runs through the whole network
            network['drop_path_rate'] = backbone['drop_path_rate']
        stage, stride, dilation = old.get('stage', 3), old.get('stride', 2), old.get('dilation', 1)
        head['shared_head'] = new = dict(type='nfnet_mm.NFStage', backbone=network, stage=stage, stride=stride)
        if dilation != 1:
            new['dilation'] = dilation
        if 'init_cfg' in backbone:
            new['init_cfg'] = copy.deepcopy(backbone['init_cfg'])
        lost = f', its last norm left out ({kind})' if kind == 'ResLayerExtraNorm' else ''
        shape = f'stage {stage} of {self.network.name}, stride {stride}, dilation {dilation}'
        self.notes.add(f'{path}: {kind} -> {shape}, and an activation at its end{lost}')
        return [(64 * _expansion(old) * 2**stage, self.network.channels(stage))]

    def _check_options(self, old: dict[str, Any], path: str, known: tuple[str, ...]) -> None:
        """Refuse options without counterpart; of what the ResNet computed besides, warn unless the user is strict."""
        name = self.network.name
        for key in old:
            if key not in known:
                raise UserError(f'{path}.{key}={old[key]!r} has no counterpart in {name}')
        for key, what in EXTRAS.items():
            if old.get(key):
                lost, value = f'{path}.{key} ({what}) has no counterpart in {name}', short(old[key])
                if self.strict:
                    raise UserError(f'{lost}: {value}; without --strict it is left out')
                self.notes.warn(f'{lost} and is left out: {value}')

    def _backbone(self, old: dict[str, Any], path: str, indices: tuple[int, ...]) -> dict[str, Any]:
        """The config of the new backbone: the network's, and what is carried over from the old."""
        notes, name, arch = self.notes, self.network.name, self.network.arch
        self._check_options(old, path, _BACKBONE_OPTIONS)
        conv = old.get('conv_cfg') or {}
        if conv.get('type') not in PLAIN_CONVS:
            what = f'{path}.conv_cfg={conv!r}'
            raise UserError(f'{what} has no counterpart in {name}, whose convs are weight-standardised')
        carried: dict[str, Any] = dict(out_indices=indices)
        for key, default in (('frozen_stages', -1), ('in_channels', 3), ('with_cp', False), ('drop_path_rate', 0.0)):
            if old.get(key, default) != default:
                carried[key] = old[key]
        # The stem's stride times the first stage's is 4 in ResNets; NF-RegNets divide it otherwise.
        strides = (*old.get('strides', (1, 2, 2, 2)), 1, 1, 1)[:4]
        first, left_over = divmod(4 * strides[0], arch.stem_stride)
        if left_over:
            what = f'{path}.strides={old["strides"]!r}'
            raise UserError(f'{what}: the stem of {name} already has stride {arch.stem_stride}')
        strides = (first, *strides[1:])
        if strides[: max(indices) + 1] != arch.strides[: max(indices) + 1]:
            carried['strides'] = strides
        dilations = (*old.get('dilations', ()), 1, 1, 1, 1)[:4]
        if dilations != (1, 1, 1, 1):
            carried['dilations'] = dilations
        if self.weights:
            carried['init_cfg'] = start = dict(type='nfnet_mm.NFPretrained', checkpoint=self.weights)
            if (channels := carried.get('in_channels', 3)) != self.weights_channels:
                start['in_channels'] = 'mean'
                mean = f'the mean kernel of the {self.weights_channels} channels of the weights for each of {channels}'
                notes.add(f"{path}.init_cfg.in_channels='mean': {mean}; 'cycle' repeats them in order instead")
        elif (frozen := carried.get('frozen_stages', -1)) != -1:
            carried['frozen_stages'] = -1
            notes.add(f'{path}.frozen_stages: {frozen} -> -1: frozen random weights would never be trained')
        notes.add(f'{path}: {type_name(old)}-{old.get("depth", 50)} -> {name}, {listed(carried)}')
        if gone := [key for key in MOOT if old.get(key) not in (None, False)]:
            notes.add(f'{path}: dropped {", ".join(gone)}')
        for key, what in NEAREST.items():
            if old.get(key):
                notes.add(f'{path}: {key} has no counterpart, {what}')
        if carried.get('frozen_stages') == 4 and 4 in indices and arch.final_channels:
            but = f'not the final conv that {name} has behind them'
            notes.warn(f'{path}: frozen_stages=4 freezes the four stages as before, but {but}')
        if not self.weights:
            notes.add(f'{path} starts from random weights: name its weights with --weights')
        return {**self.network.cfg, **carried}
