"""A file of weights in one pass: read it, tell whose names it has, rename, and check every tensor.

The dialect (see ``NFArch.dialect``) is not in the weights. DeepMind's are of the authors' dialect, in timm's files too:
``dm_nfnet_*`` are DeepMind's weights under timm's names, and the only ones there with SkipInit gains. All others in
timm's names were trained in timm, in timm's dialect; so would be a ``dm_nfnet_*`` that was trained further in timm.
Files that this package converted say their dialect; other checkpoints of ours are taken by the same rule.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from nfnet_mm.engine.folded_checkpoint import FOLDED, is_folded
from nfnet_mm.errors import UserError, some
from nfnet_mm.models.backbones.arch import FAMILIES, resolve_arch
from nfnet_mm.models.backbones.plan import NFArch, plan_blocks
from nfnet_mm.models.layers.ws_conv import DIALECTS

from .errors import ConversionError, naming
from .formats.read import Content, read_weights
from .hub import local_file
from .layout import Layout, check_leaves, planned_layout, read_layout
from .names.deepmind import read_deepmind
from .names.timm import read_timm

_BACKBONE, _HEAD = 'backbone.', 'head.fc.'
_FIRST = 'stem.conv0.weight'  # which every backbone of ours has


@dataclass(frozen=True)
class Weights:
    """Weights under our names, and what was found out about them.

    They are ``backbone.*`` and whatever the file has beside them (``head.fc.*``, a detector's). Those of the backbone
    and of ``head.fc`` are checked, each once.
    """

    source: str  # 'deepmind', 'timm' or 'ours'
    dialect: str
    state_dict: dict[str, Tensor]
    layout: Layout | None = None  # of a checkpoint of ours none: it may be a detector's
    foreign: tuple[str, ...] = ()  # names that were left out, as not under the prefix that was asked for

    def classifier_layout(self) -> Layout:
        """The layout of the whole classifier that they are.

        Raises:
            ConversionError: they are no whole classifier; the message names what is missing or left over.
        """
        return self.layout if self.layout and self.layout.num_classes else read_layout(self.state_dict)


def load_weights(source: str | os.PathLike, prefix: str | None = None, dialect: str | None = None) -> Weights:
    """Read DeepMind's, timm's or our weights and give them our names.

    Args:
        source: the path of a file that :func:`read_weights` reads (of DeepMind's, of timm's, or a checkpoint of one of
            our classifiers, detectors or segmentors, or of a backbone alone), or an address or name of one for
            :func:`~nfnet_mm.converters.hub.local_file`.
        prefix: of the backbone's keys, e.g. ``'teacher.backbone.'``; found by itself where it is nothing, or in a
            checkpoint of ours ``'backbone.'``. What the file holds beside it (a student, another teacher) is left out.
        dialect: the one they were trained in, 'authors' or 'timm'; by default as this module tells.

    Raises:
        ConversionError: there is no such file, it cannot be downloaded or read, or its weights are not one whole
            network, or folded; the message names the file.
    """
    path = local_file(source)
    content = read_weights(path)
    with naming(path):
        return _recognise(content, prefix, dialect)


def _recognise(content: Content, prefix: str | None, dialect: str | None) -> Weights:
    if is_folded(dict(meta=content.meta)):
        raise ConversionError(FOLDED)
    state = content.state_dict or {}
    if state and all(k.startswith('module.') for k in state):  # saved from inside DataParallel
        state = {k.removeprefix('module.'): v for k, v in state.items()}
    places = _timm_places(state)
    whose = 'DeepMind' if content.tree is not None else 'timm' if '' in places else None
    if whose and prefix is not None:
        raise ConversionError(f"prefix={prefix!r} is for checkpoints of ours, these are weights under {whose}'s names")
    if content.tree is not None:
        return Weights('deepmind', dialect or 'authors', *read_deepmind(content.tree, content.state))
    source, layout = 'ours', None
    if (prefix or '') in places:
        source = 'timm'
        named, foreign = _under(prefix or '', state)
        named, layout = read_timm(named, head='head.fc.weight' in named)
    else:
        if prefix is None:
            prefix = '' if _FIRST in state else _BACKBONE
        if f'{prefix}{_FIRST}' not in state:
            if found := [*places, *(k.removesuffix(_FIRST) for k in state if k.endswith(f'.{_FIRST}'))]:
                raise ConversionError(f'no backbone under {prefix!r}, but under {some(found)}: say which with prefix')
            known = 'no weights of a normalizer-free network of DeepMind, timm or ours'
            raise ConversionError(f'{known}; the keys are {some(state)}')
        # what stands around 'backbone.' goes, and so does what stands beside it: another network's, whatever its names
        root = prefix.removesuffix(_BACKBONE)
        named, foreign = _under(root, state)
        # a BatchNorm's of a constructed state, see layers.BatchNorm2d: of no weight's use
        named = {k: v for k, v in named.items() if not k.endswith(('.hidden_mean', '.hidden_var'))}
        if root == prefix:
            named = {_BACKBONE + k: v for k, v in named.items()}
        check_leaves({k: v for k, v in named.items() if k.startswith((_BACKBONE, _HEAD))})
    if content.meta.get('dialect') in DIALECTS:
        dialect = dialect or content.meta['dialect']
    timms = f'{_BACKBONE}stem.conv0.gain' in named and f'{_BACKBONE}stages.0.0.skip_gain' not in named
    dialect = dialect or ('timm' if timms else 'authors')
    return Weights(source, dialect, named, layout, foreign)


def _under(prefix: str, state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The weights under a prefix, by their names without it, and the names of the others."""
    inside = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    return inside, tuple(k for k in state if not k.startswith(prefix))


def _timm_places(state: Mapping[str, Tensor]) -> set[str]:
    """The prefixes under which there is a network in timm's names."""
    # Ours, too, have a stem.conv1, but gains of one dimension there and a stem.conv0 before it.
    return {
        k.removesuffix(first)
        for first in ('stem.conv.gain', 'stem.conv1.gain')
        for k in state
        if (k == first or k.endswith(f'.{first}')) and f'{k.removesuffix(first)}{_FIRST}' not in state
    }


def find_arch(layout: Layout, dialect: str) -> str | None:
    """The key of the variant that has a layout, in the table of its family; None if the table has no such variant.

    Args:
        layout: of the weights.
        dialect: 'authors' or 'timm'.
    """
    for key, row in FAMILIES[layout.family][1].items():
        near = (row.dialect, row.depths, row.widths) == (dialect, layout.depths, layout.widths)
        if near and _layout_of(row, layout) == layout:
            return key
    return None


def check_arch(layout: Layout, arch: str) -> str:
    """Hold the layout of weights against that of a variant; its key in the table of the family.

    Raises:
        ConversionError: the family has no variant of this name, or the weights do not fit it.
    """
    try:
        row = resolve_arch(layout.family, arch)
    except UserError as error:
        raise ConversionError(str(error)) from None
    key = next(key for key, known in FAMILIES[layout.family][1].items() if known is row)
    want = _layout_of(row, layout)
    wrong = [
        f'{name} {getattr(layout, name)}, not {value}'
        for name, value in vars(want).items()
        if name != 'shapes' and getattr(layout, name) != value
    ]
    if wrong:
        raise ConversionError(f"the weights are not {key}'s: they have {'; '.join(wrong)}")
    have = layout.shapes
    wrong = [f'{k} has shape {have.get(k)}, not {v}' for k, v in want.shapes.items() if have.get(k) != v]
    if wrong:
        raise ConversionError(f"the weights are not {key}'s: {some(wrong)}")
    return key


def _layout_of(row: NFArch, like: Layout) -> Layout:
    """The layout of a variant, with the channels of the images and the classes of another."""
    return planned_layout(like.family, row, plan_blocks(row), like.in_channels, like.num_classes)
