"""The one table of networks, and their names. Adding a network is adding a row.

Sources: NFNets = Brock et al. 2021, "High-Performance Large-Scale Image Recognition Without Normalization"; NF-ResNets
= Brock et al. 2021, "Characterizing signal propagation ..."; the authors' released code where it differs; timm 1.0.31
(timm/models/nfnet.py) for the variants named ``timm/`` and timm's own name, and for L0 and ECA-L0 to ECA-L3.
"""

import dataclasses
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any, NamedTuple

from nfnet_mm.errors import UserError, did_you_mean

from .plan import NUM_STAGES, NFArch, check_counts, is_count, round_to_multiple


def _stem(channels: int | tuple[int, ...], *before: int) -> tuple[int, ...]:
    """The channels of the stem's convs: all of them as told, or those of the last after the family's before it."""
    return channels if isinstance(channels, tuple) else (*before, channels)


def _nfnet(**fields: Any) -> NFArch:
    """NFNets, section 5, Table 1 and Appendix C: F0 unless told otherwise."""
    widths = fields.setdefault('widths', (256, 512, 1536, 1536))
    convs = _stem(fields.pop('stem_channels', widths[0] // 2), 16, 32, 64)
    strides = (2, *[1] * (len(convs) - 2), 2) if len(convs) > 1 else (4,)
    stem = dict(stem_channels=convs, stem_strides=strides, stem_kernel=3, stem_pool=None)
    shape = dict(depths=(1, 2, 6, 3), strides=(1, 2, 2, 2), bottleneck_ratio=0.5, group_width=128)
    rest = dict(final_channels=2 * widths[-1], act='gelu', attention='se', extra_conv=True, shortcut_pool=True)
    return NFArch(**{**stem, **shape, **rest, **fields})


def _nf_resnet(**fields: Any) -> NFArch:
    """NF-ResNets, section 5.1 and Appendix A: a pre-activation ResNet; 50 unless told otherwise."""
    convs = _stem(fields.pop('stem_channels', 64))
    stem = dict(stem_channels=convs, stem_strides=(2, *[1] * (len(convs) - 1)), stem_kernel=7, stem_pool='same')
    shape = dict(widths=(256, 512, 1024, 2048), depths=(3, 4, 6, 3), strides=(1, 2, 2, 2), bottleneck_ratio=0.25)
    rest = dict(group_width=None, final_channels=None, act='relu', se_ratio=0.25)  # the ratio is the released code's
    return NFArch(**{**stem, **shape, **rest, **fields})


def _nf_regnet(**fields: Any) -> NFArch:
    """NF-ResNets, section 5.2 and Appendix C: B0 unless told otherwise."""
    widths = fields.setdefault('widths', (36, 78, 156, 330))
    convs = _stem(fields.pop('stem_channels', widths[0]))
    stem = dict(stem_channels=convs, stem_strides=(2, *[1] * (len(convs) - 1)), stem_kernel=3, stem_pool=None)
    shape = dict(depths=(1, 3, 6, 6), strides=(2, 2, 2, 2), bottleneck_ratio=2.25, group_width=8)
    shape['final_channels'] = 1280 * widths[-1] // 440
    rest = dict(act='silu', attention='se', inverted_bottleneck=True, shortcut_pool=True)
    return NFArch(**{**stem, **shape, **rest, **fields})


def _baseline(build: Callable[..., NFArch], method: str) -> Callable[..., NFArch]:
    """The same shape in a baseline of the papers."""
    return partial(build, method=method, skip_init=method == 'skipinit')


# What every model trained in timm shares: its weight standardisation with the gain inside, no SkipInit, widths in
# multiples of 8.
_TIMM: dict[str, Any] = dict(dialect='timm', padding='symmetric', gain_in_conv=True, skip_init=False)
_TIMM |= dict(se_divisor=8, width_divisor=8)
# timm's port of the authors' F0-F6: their padding and SkipInit, but its own standardisation and the exact GELU, so
# not the same function.
_TIMM_PORT: dict[str, Any] = dict(dialect='timm', act='gelu_exact', se_divisor=8, width_divisor=8)
# F0+ to F7+. The first stage is one dense group of 192: with 128, F4+ would have 525.0 M parameters and 333 G
# multiply-adds; it has the 527 M and 367 G of NFNets, Table 5, with 192.
_PLUS: dict[str, Any] = dict(widths=(384, 768, 2048, 2048), group_width=(192, 128, 128, 128))
_SMALL: dict[str, Any] = dict(widths=(32, 64, 96, 128), depths=(1, 1, 1, 1))


def _nfnet_rows() -> dict[str, NFArch]:
    rows = {}
    for n in range(8):
        fields: dict[str, Any] = dict(depths=tuple(d * (n + 1) for d in (1, 2, 6, 3)))
        rows[f'F{n}'] = _nfnet(**fields)
        rows[f'F{n}+'] = _nfnet(**fields, **_PLUS)
        rows[f'timm/nfnet_f{n}'] = _nfnet(**fields, **_TIMM, act='gelu_exact')
        if n < 7:
            rows[f'timm/dm_nfnet_f{n}'] = _nfnet(**fields, **_TIMM_PORT)
    light: dict[str, Any] = dict(bottleneck_ratio=0.25, act='silu', group_width=64, final_channels=2304, **_TIMM)
    rows['L0'] = _nfnet(**light, se_ratio=0.25)
    for n in range(4):
        fields = dict(depths=rows[f'F{n}'].depths, attention='eca', final_channels=3072 if n else 2304)
        rows[f'ECA-L{n}'] = _nfnet(**{**light, **fields})
    fields = dict(**_SMALL, stem_channels=128, se_ratio=0.25, group_width=8, final_channels=192)
    rows['timm/test_nfnet'] = _nfnet(**{**light, **fields})
    # Ours, for demos and quick tests on a CPU.
    rows['nano'] = _nfnet(**_SMALL, stem_channels=(8, 16, 16, 32), group_width=16)
    return rows


_DEPTHS = {  # NF-ResNets, section 5.1; 26 is timm's
    '26': (2, 2, 2, 2),
    '50': (3, 4, 6, 3),
    '101': (3, 4, 23, 3),
    '152': (3, 8, 36, 3),
    '200': (3, 24, 36, 3),
    '288': (24, 24, 24, 24),
    '600': (50, 50, 50, 50),
}


def _nf_resnet_rows() -> dict[str, NFArch]:
    rows = {key: _nf_resnet(depths=d) for key, d in _DEPTHS.items()}
    timm = dict(stem_pool='symmetric', shortcut_pool=True, se_ratio=1 / 16, **_TIMM)
    for key in ('26', '50', '101'):
        for prefix, attention in (('', None), ('se', 'se'), ('eca', 'eca')):
            rows[f'timm/nf_{prefix}resnet{key}'] = _nf_resnet(depths=_DEPTHS[key], attention=attention, **timm)
    return rows


def _nf_regnet_rows() -> dict[str, NFArch]:
    # NF-ResNets, Appendix D.2: widths before the factor 0.75, and depths
    table = (
        ((48, 104, 208, 440), (1, 3, 6, 6)),
        ((48, 104, 208, 440), (2, 4, 7, 7)),
        ((56, 112, 232, 488), (2, 4, 8, 8)),
        ((56, 128, 248, 528), (2, 5, 9, 9)),
        ((64, 144, 288, 616), (2, 6, 11, 11)),
        ((80, 168, 336, 704), (3, 7, 14, 14)),
        ((88, 184, 376, 792), (3, 8, 16, 16)),
        ((96, 208, 416, 880), (4, 10, 19, 19)),
        ((104, 232, 456, 968), (4, 11, 22, 22)),
    )
    rows = {}
    for n, (full, depths) in enumerate(table):
        rows[f'B{n}'] = _nf_regnet(widths=tuple(int(w * 0.75) for w in full), depths=depths)
        if n < 6:
            widths = tuple(round_to_multiple(w * 0.75, 8) for w in full)
            final = round_to_multiple(1280 * full[-1] // 440 * 0.75, 8)
            rows[f'timm/nf_regnet_b{n}'] = _nf_regnet(widths=widths, final_channels=final, **_TIMM, depths=depths)
    return rows


def _baseline_rows(build: Callable[..., NFArch]) -> dict[str, NFArch]:
    """The ResNets of NF-ResNets, section 5.1, as one of its baselines."""
    return {key: build(depths=d) for key, d in _DEPTHS.items() if key != '26'}


def _bn_nfnet_rows() -> dict[str, NFArch]:
    """NFNets, Table 6, which has F0 to F3; and ours for demos."""
    keys = (*(f'F{n}' for n in range(8)), 'nano')
    rows = _nfnet_rows()
    return {key: dataclasses.replace(rows[key], method='bn', skip_init=False) for key in keys}


_bn_resnet, _fixup, _skipinit = (_baseline(_nf_resnet, method) for method in ('bn', 'fixup', 'skipinit'))

# {family: (what completes a dict of fields, {key: network})}
FAMILIES: Mapping[str, tuple[Callable[..., NFArch], dict[str, NFArch]]] = {
    'NFNet': (_nfnet, _nfnet_rows()),
    'NFResNet': (_nf_resnet, _nf_resnet_rows()),
    'NFRegNet': (_nf_regnet, _nf_regnet_rows()),
    # the papers' baselines
    'BNResNet': (_bn_resnet, _baseline_rows(_bn_resnet)),
    'FixupResNet': (_fixup, _baseline_rows(_fixup)),
    'SkipInitResNet': (_skipinit, _baseline_rows(_skipinit)),
    'BNNFNet': (_baseline(_nfnet, 'bn'), _bn_nfnet_rows()),
}
_PREFIXES = dict(
    NFNet='nfnet_',
    NFResNet='nf_resnet',
    NFRegNet='nf_regnet_',
    BNResNet='bn_resnet',
    FixupResNet='fixup_resnet',
    SkipInitResNet='skipinit_resnet',
    BNNFNet='bn_nfnet_',
)
# Fields that a dict cannot state: what the type and its arguments do, and what the baselines do not have.
_BY_TYPE = ('method', 'preact', 'norm_first')
_NOT_BN = ('dialect', 'padding', 'gain_in_conv', 'skip_init', 'inverted_bottleneck')
_NOT_PLAIN = (*_NOT_BN, 'extra_conv', 'final_channels')
_CLOSED = dict(nf=_BY_TYPE, bn=(*_BY_TYPE, *_NOT_BN), fixup=(*_BY_TYPE, *_NOT_PLAIN), skipinit=(*_BY_TYPE, *_NOT_PLAIN))


class Network(NamedTuple):
    """A network of the table: its family and its key there."""

    family: str
    key: str

    @property
    def name(self) -> str:
        """Its full name, for where no type tells the family: ``'nfnet_f0'``, ``'nf_resnet50'``, ``'timm/nfnet_f0'``."""
        if self.key.startswith('timm/'):
            return self.key
        return f'{_PREFIXES[self.family]}{self.key.lower()}'.replace('nfnet_eca-', 'eca_nfnet_')

    @property
    def old_name(self) -> str | None:
        """The other spelling of a network of timm, with or without ``timm/``."""
        if self.key.startswith('timm/'):
            return self.key.removeprefix('timm/')
        return f'timm/{self.name}' if self.arch.dialect == 'timm' else None

    @property
    def arch(self) -> NFArch:
        """Its design."""
        return FAMILIES[self.family][1][self.key]

    @property
    def cfg(self) -> dict[str, Any]:
        """The config of the backbone."""
        what = dict(depth=int(self.key)) if self.key.isdecimal() else dict(arch=self.key)
        return dict(type=f'nfnet_mm.{self.family}', **what)

    def channels(self, index: int) -> int:
        """The channels of output ``index`` (0-3 the stages, 4 the classification feature)."""
        return (*self.arch.widths, self.arch.final_channels or self.arch.widths[-1])[index]


_NETWORKS = tuple(Network(family, key) for family, (_, rows) in FAMILIES.items() for key in rows)


def network_names() -> list[str]:
    """The full name of every network of the table, which :func:`find_network` knows."""
    return [network.name for network in _NETWORKS]


def find_network(name: str) -> Network:
    """The network of a full name, as a command line or the name of a config has it.

    ``nfnet_f0``, ``nf_resnet50`` and ``nf_regnet_b1`` are the papers' networks, for the authors' weights;
    ``timm/nf_resnet50`` is timm's, for timm's; ``bn_resnet50``, ``fixup_resnet50``, ``skipinit_resnet50`` and
    ``bn_nfnet_f0`` are the papers' baselines. A key of the table (``F0``) does as well, for a normalizer-free network,
    and so does the bare name of a network that only timm has (``nf_seresnet50``). Upper and lower case are the same.

    Raises:
        UserError: it is unknown; the message suggests the nearest names and lists all.

    Example:
        >>> find_network('nfnet_f0').cfg, find_network('nf_resnet50').channels(3)
        ({'type': 'nfnet_mm.NFNet', 'arch': 'F0'}, 2048)
    """
    wanted, known = str(name).lower(), network_names()
    if wanted in known:
        return _NETWORKS[known.index(wanted)]
    for network in _NETWORKS:
        if wanted in (network.key.lower(), network.old_name):
            return network
    raise UserError(_unknown('backbone', name, known, hints=3))


def resolve_arch(family: str, arch: str | Mapping[str, Any] | NFArch) -> NFArch:
    """The variant of ``family`` that ``arch`` names or describes.

    Args:
        family: a key of ``FAMILIES``.
        arch: a key of its table (or the full name of that network, or timm's name, where only one network is called
            so); or a dict of :class:`NFArch` fields, where what it leaves out takes the family's default and
            ``stem_channels`` may be the last conv's channels alone.

    Raises:
        UserError: the name or a field is unknown (the message suggests the nearest and lists all), two networks are
            called so (it names both), or a value is malformed (it names the field).

    Example:
        >>> resolve_arch('NFNet', 'F1').depths
        (2, 4, 12, 6)
        >>> resolve_arch('NFNet', dict(widths=(16, 32, 48, 48), group_width=8)).stem_channels
        (16, 32, 64, 8)
    """
    build, rows = FAMILIES[family]
    method = next(iter(rows.values())).method
    if isinstance(arch, NFArch):
        if arch.method != method:
            raise UserError(f'{family} arch={arch!r} is of the method {arch.method!r}; it has to be {method!r}')
        return arch
    if isinstance(arch, str):
        if arch in rows:
            return rows[arch]
        called = [n for n in _NETWORKS if n.family == family and arch in (n.name, n.old_name)]
        if len(called) == 2:
            which = f"{called[0].key!r} for the paper's network, {called[1].key!r} for timm's"
            raise UserError(f'{family} arch {arch!r} is the name of two networks: {which}')
        if called:
            return called[0].arch
        hint = did_you_mean(arch, [*rows, *(n.name for n in _NETWORKS if n.family == family)], cutoff=0.4)
        raise UserError(f'{family} arch {arch!r} is unknown.{hint} Known: {", ".join(rows)}; or a dict of its fields.')
    if not isinstance(arch, Mapping):
        raise UserError(f'{family} arch={arch!r} must be a name or a dict; known names: {", ".join(rows)}')
    known = [field.name for field in dataclasses.fields(NFArch) if field.name not in _CLOSED[method]]
    for field in arch:
        if field == 'regnet':
            raise UserError("arch field 'regnet' is called 'inverted_bottleneck'")
        if field not in known:
            raise UserError(_unknown('arch field', field, known))
    fields = {k: tuple(v) if isinstance(v, list) else v for k, v in arch.items()}
    if 'widths' in fields:  # the family's defaults are derived from these two, so they are checked first
        fields['widths'] = check_counts('widths', fields['widths'], NUM_STAGES)
    if not is_count(fields.get('stem_channels', 1)):
        fields['stem_channels'] = check_counts('stem_channels', fields['stem_channels'])
    return build(**fields)


def resolve_resnet(
    family: str,
    depth: int | str | Mapping[str, Any],
    arch: str | Mapping[str, Any] | NFArch | None,
    attention: str | None = None,
    **fields: Any,
) -> NFArch:
    """The variant of a family of ResNets, named by its depth, with other values of some fields.

    Args:
        family: a key of ``FAMILIES``.
        depth: a key of its table, or what ``arch`` takes.
        arch: instead of a depth, as for :func:`resolve_arch`.
        attention: that of the blocks, where ``arch`` states none: with a depth or a dict without ``attention``.
        fields: others of :class:`NFArch`.

    Raises:
        UserError: as :func:`resolve_arch`, or the attention is stated twice.

    Example:
        >>> resolve_resnet('NFResNet', 50, None, attention='se').attention
        'se'
    """
    if arch is None:
        arch = depth if isinstance(depth, Mapping) else str(depth)
    row = resolve_arch(family, arch)
    if attention is not None:
        if 'attention' in arch if isinstance(arch, Mapping) else not str(arch).isdecimal():
            raise UserError(f'attention={attention!r} goes with depth; arch={arch!r} states its own attention')
        fields['attention'] = attention
    return dataclasses.replace(row, **fields) if fields else row


def _unknown(what: str, value: Any, known: Collection[str], hints: int = 1) -> str:
    hint = did_you_mean(value, known, count=hints, cutoff=0.4)
    return f'{what} {value!r} is unknown.{hint} Known: {", ".join(known)}'
