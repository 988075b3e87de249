"""What weights are: whose names they bear, which variant they fit, and in which dialect they were trained.

The dialect (see ``NFArch.dialect``) is not in the weights. DeepMind's are of the authors' dialect, in timm's files too:
``dm_nfnet_*`` are DeepMind's weights under timm's names, and the only ones there with SkipInit gains. All others in
timm's names were trained in timm, in timm's dialect; so would be a ``dm_nfnet_*`` that was trained further in timm.
Files that this package converted say their dialect; other checkpoints of ours are taken by the same rule.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nfnet_mm.errors import some
from nfnet_mm.models.backbones import plan_blocks
from nfnet_mm.models.backbones.arch import FAMILIES, NFArch, resolve_arch
from nfnet_mm.models.layers.ws_conv import DIALECTS
from nfnet_mm.registry import MODELS

from .errors import ConversionError
from .formats.read import Content, read_weights
from .layout import Layout, check_leaves
from .names.deepmind import from_deepmind
from .names.timm import from_timm

_BACKBONE = 'backbone.'


@dataclass(frozen=True)
class Weights:
    """Weights under our names: ``backbone.*``, and whatever the file has beside them (``head.fc.*``, a detector's)."""

    source: str  # 'deepmind', 'timm' or 'ours'
    dialect: str
    state_dict: dict[str, Tensor]
    foreign: tuple[str, ...] = ()  # names that were left out, as not under the prefix that was asked for

    @property
    def backbone(self) -> dict[str, Tensor]:
        """The backbone's weights, without prefix."""
        return {k.removeprefix(_BACKBONE): v for k, v in self.state_dict.items() if k.startswith(_BACKBONE)}


def load_weights(path: str | os.PathLike, prefix: str | None = None) -> Weights:
    """Read a file of DeepMind's, timm's or our weights and give them our names.

    Args:
        path: A file that :func:`read_weights` reads: of DeepMind's, of timm's, or a checkpoint of one of our
            classifiers, detectors or segmentors, or of a backbone alone.
        prefix: Of the backbone's keys, e.g. ``'teacher.backbone.'``; found by itself where it is nothing, or in a
            checkpoint of ours ``'backbone.'``. What the file holds beside it (a student, another teacher) is left out.

    Raises:
        ConversionError: The file is unreadable, or its weights are not one whole network; the message names the file.
    """
    content = read_weights(path)
    try:
        return _recognise(content, prefix)
    except ConversionError as error:
        raise type(error)(f'{os.fspath(path)!r}: {error}') from None


def _recognise(content: Content, prefix: str | None) -> Weights:
    if content.tree is not None:
        _no_prefix(prefix, 'DeepMind')
        return Weights('deepmind', 'authors', from_deepmind(content.tree))
    state = content.state_dict
    if state and all(k.startswith('module.') for k in state):  # saved from inside DataParallel
        state = {k.removeprefix('module.'): v for k, v in state.items()}
    places = _timm_places(state)
    if '' in places:
        _no_prefix(prefix, 'timm')
    if (prefix or '') in places:
        foreign = tuple(k for k in state if not k.startswith(prefix or ''))
        state = {k.removeprefix(prefix or ''): v for k, v in state.items() if k.startswith(prefix or '')}
        state = from_timm(state, head='head.fc.weight' in state)
        dialect = 'authors' if 'backbone.stages.0.0.skip_gain' in state else 'timm'
        return Weights('timm', _known_dialect(content.meta) or dialect, state, foreign)
    if prefix is None:
        prefix = '' if 'stem.conv0.gain' in state else _BACKBONE
    if f'{prefix}stem.conv0.gain' not in state:
        raise ConversionError(_no_backbone(state, prefix))
    # what stands around 'backbone.' goes, and so does what stands beside it: another network's, whatever its names
    root = prefix.removesuffix(_BACKBONE)
    named = {
        k.removeprefix(root) if root != prefix else _BACKBONE + k.removeprefix(prefix): v
        for k, v in state.items()
        if k.startswith(root)
    }
    check_leaves({k: v for k, v in named.items() if k.startswith(_BACKBONE)})
    dialect = 'authors' if 'backbone.stages.0.0.skip_gain' in named else 'timm'
    foreign = tuple(k for k in state if not k.startswith(root))
    return Weights('ours', _known_dialect(content.meta) or dialect, named, foreign)


def _no_prefix(prefix: str | None, whose: str) -> None:
    if prefix is not None:
        raise ConversionError(f"prefix={prefix!r} is for checkpoints of ours, these are weights under {whose}'s names")


def _known_dialect(meta: Mapping[str, Any]) -> str | None:
    return meta['dialect'] if meta.get('dialect') in DIALECTS else None


def _timm_places(state: Mapping[str, Tensor]) -> set[str]:
    """The prefixes under which there is a network in timm's names."""
    # Ours, too, have a stem.conv1, but gains of one dimension there and a stem.conv0 before it.
    return {
        k.removesuffix(first)
        for first in ('stem.conv.gain', 'stem.conv1.gain')
        for k in state
        if (k == first or k.endswith(f'.{first}')) and f'{k.removesuffix(first)}stem.conv0.gain' not in state
    }


def _no_backbone(state: Mapping[str, Tensor], prefix: str) -> str:
    found = [k.removesuffix('stem.conv0.gain') for k in state if k.endswith('.stem.conv0.gain')]
    found += _timm_places(state)
    if found:
        return f'no backbone under {prefix!r}, but under {some(found)}: say which with prefix'
    return f'no weights of a normalizer-free network of DeepMind, timm or ours; the keys are {some(state)}'


def find_arch(layout: Layout, dialect: str) -> str | None:
    """The name of the variant that weights fit, or None if the table has no such variant.

    Args:
        layout: Of the weights.
        dialect: 'authors' or 'timm'.
    """
    rows = FAMILIES[layout.family][1]
    return next((name for name, row in rows.items() if row.dialect == dialect and not mismatches(row, layout)), None)


def mismatches(row: NFArch, layout: Layout) -> list[str]:
    """What of a variant does not fit weights, as ``'depths (1, 2, 6, 3), not (2, 4, 12, 6)'``; none if it fits."""
    last = {block.stage: block for block in plan_blocks(row)}
    want = dict(
        depths=row.depths,
        widths=row.widths,
        mid_widths=tuple(block.width for block in last.values()),
        group_widths=tuple(block.width // block.groups for block in last.values()),
        stem_channels=row.stem_channels[-1],
        attention=row.attention,
        skip_gain=row.skip_init,
        final_channels=row.final_channels,
        se_hidden=last[len(row.depths) - 1].se_hidden,
    )
    return [
        f'{name} {getattr(layout, name)}, not {value}' for name, value in want.items() if getattr(layout, name) != value
    ]


def backbone_config(family: str, arch: str) -> dict[str, Any]:
    """The config of a backbone of the table.

    >>> backbone_config('NFNet', 'F0'), backbone_config('NFResNet', '50')
    ({'type': 'nfnet_mm.NFNet', 'arch': 'F0'}, {'type': 'nfnet_mm.NFResNet', 'depth': 50})
    """
    return dict(type=f'nfnet_mm.{family}', **(dict(depth=int(arch)) if arch.isdecimal() else dict(arch=arch)))


def check_arch(state_dict: Mapping[str, Tensor], layout: Layout, arch: str) -> None:
    """Hold a classifier's weights against the very model of a variant, key by key.

    Raises:
        ConversionError: The family has no variant of this name, or the weights do not fit it.
    """
    try:
        row = resolve_arch(layout.family, arch)
    except ValueError as error:
        raise ConversionError(str(error)) from None
    wrong = mismatches(row, layout)
    if wrong:
        raise ConversionError(f"the weights are not {arch}'s: they have {'; '.join(wrong)}")
    with torch.device('meta'):  # shapes only
        model = MODELS.build(
            dict(backbone_config(layout.family, arch), out_indices=(4,), in_channels=layout.in_channels)
        )
    shapes = {_BACKBONE + k: tuple(v.shape) for k, v in model.state_dict().items()}
    have = {k: tuple(v.shape) for k, v in state_dict.items() if k.startswith(_BACKBONE)}
    wrong = [
        f'{k} has shape {have.get(k)}, not {shapes.get(k)}' for k in {**shapes, **have} if have.get(k) != shapes.get(k)
    ]
    if wrong:
        raise ConversionError(f"the weights are not {arch}'s: {some(wrong)}")
