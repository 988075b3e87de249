"""Which network of the table weights are of, whole or in part, and which files are a run's own checkpoints."""

import os
import re

from nfnet_mm.engine.sharded_checkpoint import is_sharded_checkpoint
from nfnet_mm.errors import some
from nfnet_mm.models.backbones.arch import Network, find_network, network_names
from nfnet_mm.models.backbones.plan import NUM_STAGES, plan_blocks

from .errors import ReadError
from .formats.pytorch import BEGINNINGS, pickled_texts
from .layout import method_of, planned_layout
from .load import Weights

# The parts of a network, each of which a file, or a module, may be without.
PARTS = ('stem.', *(f'stages.{stage}.' for stage in range(NUM_STAGES)), 'final_conv.', 'final_bn.', 'bias2')
METHOD_NAMES = dict(
    nf='a normalizer-free network', bn='a BatchNorm network', fixup='a FixupResNet', skipinit='a SkipInitResNet'
)
SOURCES = dict(deepmind="DeepMind's weights", timm="timm's weights", ours='weights')
# Names that are in timm's state dicts (the second in a backbone of ours, too, but beside the third), and in converted
# files.
_TIMMS, _OURS, _CONVERTED = ('stem.conv.gain', 'stem.conv1.gain'), 'stem.conv0.weight', 'nfnet_mm_version'
_STEM = 'backbone.stem.conv0.weight'
_BLOCK = re.compile(r'backbone\.stages\.(\d+)\.(\d+)\.')
_STAGE_END = re.compile(r'backbone\.stages\.(\d+)\.0\.conv2\.weight')


def is_run_checkpoint(path: str | os.PathLike) -> bool:
    """Whether a file is a ``.pth`` of mmengine or of another framework, not weights that only this package reads.

    Those are public and converted ones, and the bare state dict of one of our classifiers, of which mmengine's hooks
    make nothing.

    Told from the names in it: nothing is unpickled, and no weight is read. A broken file is none: whoever reads it as
    weights says what is wrong with it.
    """
    if os.path.isdir(path):  # some formats of weights are folders, too
        return is_sharded_checkpoint(path)
    with open(path, 'rb') as file:
        if not file.read(16).startswith(BEGINNINGS):
            return False
        file.seek(0)
        try:
            texts = {text.removeprefix('module.') for text in pickled_texts(file)}
        except ReadError:
            return False
    if _CONVERTED in texts or (_OURS not in texts and not texts.isdisjoint(_TIMMS)):
        return False
    return 'state_dict' in texts or not texts >= {_STEM, 'head.fc.weight'}


def networks_of(weights: Weights) -> list[Network]:
    """The networks of the table whose backbone the weights are, in whole or without some of its ``PARTS``.

    They may be several where parts are missing, and none where the table has no such shape or dialect.
    """
    have = {k: tuple(v.shape) for k, v in weights.state_dict.items() if k.startswith('backbone.')}
    absent = tuple(f'backbone.{part}' for part in PARTS if not any(k.startswith(f'backbone.{part}') for k in have))
    method, depths = method_of(have), _depths(weights)
    channels = have[_STEM][1] if _STEM in have else 3
    found = []
    for network in map(find_network, network_names()):
        arch = network.arch
        if arch.method != method or any(arch.depths[stage] != depth for stage, depth in depths.items()):
            continue
        if method == 'nf' and arch.dialect != weights.dialect:
            continue
        shapes = planned_layout(network.family, arch, plan_blocks(arch), channels, None).shapes
        if have == {k: shape for k, shape in shapes.items() if not k.startswith(absent)}:
            found.append(network)
    return found


def _depths(weights: Weights) -> dict[int, int]:
    """{stage: blocks} of the stages that are there."""
    depths: dict[int, int] = {}
    for match in filter(None, map(_BLOCK.match, weights.state_dict)):
        stage, index = map(int, match.groups())
        depths[stage] = max(depths.get(stage, 0), index + 1)
    return {stage: depth for stage, depth in depths.items() if stage < NUM_STAGES}


def describe_network(weights: Weights) -> str:
    """The network that weights are of, by its name in the table, or by its shape.

    Example:
        >>> import torch
        >>> from nfnet_mm.models.backbones import NFNet
        >>> state = {f'backbone.{k}': v for k, v in NFNet('nano').state_dict().items()}
        >>> describe_network(Weights('ours', 'authors', state)), describe_network(Weights('ours', 'timm', state))
        ('nfnet_nano', 'a normalizer-free network that has no name, of 1, 1, 1, 1 blocks of 32, 64, 96, 128 channels')
    """
    if names := [network.name for network in networks_of(weights)]:
        return f'{some(names[:-1])} or {names[-1]}' if names[1:] else names[0]
    ends = {m[1]: v.shape[0] for k, v in weights.state_dict.items() if (m := _STAGE_END.fullmatch(k))}
    shape = [', '.join(str(number) for _, number in sorted(table.items())) for table in (_depths(weights), ends)]
    method = METHOD_NAMES[method_of(k for k in weights.state_dict if k.startswith('backbone.'))]
    return f'{method} that has no name, of {shape[0]} blocks of {shape[1]} channels'
