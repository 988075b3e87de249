"""Every backbone of the package by one name, for command lines."""

import difflib
import re
from typing import Any, NamedTuple

from nfnet_mm.errors import UserError
from nfnet_mm.models.backbones.arch import FAMILIES, NFArch, resolve_arch

__all__ = ['Variant', 'find_variant', 'variant_names']


class Variant(NamedTuple):
    """A backbone by name: its config and its shape."""

    name: str
    cfg: dict[str, Any]
    arch: NFArch

    def channels(self, index: int) -> int:
        """Of output ``index`` (see ``NFBackbone``)."""
        if index < len(self.arch.widths):
            return self.arch.widths[index]
        return self.arch.final_channels or self.arch.widths[-1]


def _arch(cfg: dict[str, Any]) -> NFArch:
    return resolve_arch(cfg['type'].partition('.')[2], str(cfg.get('arch') or cfg['depth']))


def _variants() -> dict[str, dict[str, Any]]:
    names: dict[str, dict[str, Any]] = {}
    for name in FAMILIES['NFNet'][1]:
        ours = name.lower().replace('eca-l', 'eca_nfnet_l')
        ours = f'nfnet_{ours}' if re.fullmatch(r'f\d\+?|l0|nano', ours) else ours
        names.setdefault(ours, dict(type='nfnet_mm.NFNet', arch=name))
    for name in FAMILIES['NFResNet'][1]:
        numbered = dict(type='nfnet_mm.NFResNet', depth=int(name)) if name.isdigit() else None
        names.setdefault(
            f'nf_resnet{name}' if numbered else name, numbered or dict(type='nfnet_mm.NFResNet', arch=name)
        )
    for name in FAMILIES['NFRegNet'][1]:
        names.setdefault(
            f'nf_regnet_{name.lower()}' if len(name) == 2 else name, dict(type='nfnet_mm.NFRegNet', arch=name)
        )
    # where the paper's and timm's shapes share a name, the plain one is the paper's
    for family, (_, rows) in FAMILIES.items():
        for name in rows:
            if name in names and _arch(names[name]) != rows[name]:
                names[f'timm/{name}'] = dict(type=f'nfnet_mm.{family}', arch=name)
    return names


def variant_names() -> list[str]:
    """Every name that :func:`find_variant` knows."""
    return list(_variants())


def find_variant(name: str) -> Variant:
    """The backbone of a name.

    ``nfnet_f0``, ``nf_resnet50`` and ``nf_regnet_b1`` are the papers' shapes, for the authors' weights;
    ``timm/nf_resnet50`` is timm's, for timm's.

    Raises:
        UserError: unknown; the message suggests the nearest and lists all.

    Example:
        >>> find_variant('nfnet_f0').cfg, find_variant('nf_resnet50').channels(3)
        ({'type': 'nfnet_mm.NFNet', 'arch': 'F0'}, 2048)
    """
    known = _variants()
    cfg = known.get(name.lower())
    if cfg is None:
        near = difflib.get_close_matches(name.lower(), known, n=3, cutoff=0.4)
        hint = f' Did you mean {" or ".join(map(repr, near))}?' if near else ''
        raise UserError(f'backbone {name!r} is unknown.{hint} Known: {", ".join(known)}')
    return Variant(name.lower(), dict(cfg), _arch(cfg))
