"""The suites: what must hold on a machine, and the papers' latencies."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from .rows import Row

_OURS, _TIMM = 'nfnet_f0', 'timm/dm_nfnet_f0'
_COMPILED = dict(compiled='default')


@dataclass(frozen=True)
class Suite:
    """Rows that are measured together.

    Attributes:
        what: it shows.
        rows: in order; what takes long comes last.
        settings: of all of them.
        pairs: samples of each side.
        seconds: after which no further row begins; None for no limit.
    """

    what: str
    rows: tuple[Row, ...]
    settings: Mapping[str, Any]
    pairs: int
    seconds: float | None = None


def _cpu() -> Suite:
    """On two cores: bars that this project has set itself, against timm's NFNet and the papers' ResNet."""
    pair: dict[str, Any] = dict(ours=_OURS, theirs=_TIMM)
    large = dict(batch=16)
    act = f'{_OURS},with_cp=act'
    rows = (
        Row('training step', 'train', **pair, target=0.88),
        Row('evaluation', 'eval', **pair, target=0.95),
        Row('folded evaluation', 'fold', **pair, target=0.80),
        Row('AGC, no unit clipped', 'agc', **pair, target=0.30),
        Row('AGC, all units clipped', 'agc-all', **pair, target=0.30),
        Row('weight standardisation', 'ws', **pair),
        Row('accumulation of 4 micro-batches', 'train', **pair, options=dict(micro_batches=4), target=0.85),
        Row('saved tensors, batch 16', 'saved', **pair, options=large, target=0.75),
        Row('held for the backward pass, batch 16', 'held', **pair, options=large, target=0.75),
        Row('saved tensors, activations recomputed', 'saved', act, _TIMM, options=large, target=0.55),
        Row('held, activations recomputed', 'held', act, _TIMM, options=large, target=0.55),
        Row('training step, activations recomputed', 'train', act, _OURS, target=1.08),
        Row('launches of a training step', 'launches', _OURS, target=900),
        Row('launches, of timm', 'launches', **pair),
        Row('NF-ResNet-50 step, batch 4', 'train', **_nf_resnet(50, size=192), target=1.00),
        Row('NF-ResNet-50 step, batch 16', 'train', **_nf_resnet(50, size=192, batch=16), target=0.92),
    )
    return Suite('bars on a two-core CPU', rows, dict(device='cpu', dtype='float32', layout='best', batch=4), 7)


def _nf_resnet(depth: int, **options: Any) -> dict[str, Any]:
    """The NF-ResNets' paper trains without AGC (section 5.1), and so do these two."""
    return dict(ours=f'nf_resnet{depth},agc=False', theirs=f'bn_resnet{depth}', options=options)


def _h200() -> Suite:
    """On an H200 in bfloat16: bars that this project has set itself."""
    pair: dict[str, Any] = dict(ours=_OURS, theirs=_TIMM)
    rows = (
        Row('training step', 'train', **pair, target=0.60),
        Row('training step, batch 128', 'train', **pair, options=dict(batch=128), target=0.70),
        Row('evaluation', 'eval', **pair),
        Row('folded evaluation', 'fold', **pair, target=0.55),
        Row('AGC, no unit clipped', 'agc', **pair, target=0.10),
        Row('AGC, all units clipped', 'agc-all', **pair, target=0.10),
        Row('AGC of the training step', 'agc-all', _OURS, _OURS, their_measure='train', target=0.02),
        Row('weight standardisation', 'ws', **pair),
        Row('weight standardisation of the step', 'ws', _OURS, _OURS, their_measure='train', target=0.03),
        Row('F0 / ResNet-50', 'train', _OURS, 'torchvision/resnet50', target=1.45, published=1.61),
        Row('F1 / ResNet-50', 'train', 'nfnet_f1', 'torchvision/resnet50', target=3.40, published=3.79),
        Row('NF-ResNet-50 step', 'train', **_nf_resnet(50), target=0.90, published=round(9.45 / 10.5, 2)),
        Row('synchronisations of 100 training steps', 'syncs', _OURS, target=0),
        Row('launches of a training step', 'launches', _OURS, target=900),
        Row('launches, of timm', 'launches', **pair),
        Row('peak memory of a training step', 'peak', **pair),
        Row('saved tensors', 'saved', **pair),
        Row('compiled training step', 'train', **pair, options=_COMPILED, target=0.90),
        Row('compiled folded evaluation', 'fold', **pair, options=_COMPILED, target=0.95),
        Row('launches of a captured step', 'graph-launches', _OURS, target=1),
        Row('captured step / eager step of timm', 'graph', **pair, their_measure='train'),
        _mask_rcnn('nfnet_f0', target=1.18),
    )
    return Suite('bars on an H200', rows, _papers_protocol(), 9, seconds=400)


def _papers_protocol() -> dict[str, Any]:
    """NFNets, Appendix A.2: 32 images a device, which are there already, in half precision."""
    return dict(device='cuda', dtype='bfloat16', layout='best', batch=32)


# Milliseconds of a training step on a V100 (NFNets, Table 3); ResNet-50 takes 35.3.
_RESNET50 = 35.3
_NFNETS = dict(f0=56.7, f1=133.9, f2=226.3, f3=524.5, f4=1190.6, f5=2177.1, f6=None)
# Milliseconds on a TPUv3, normalizer-free and with BatchNorm instead (NFNets, Appendix D, Table 6).
_BN_NFNETS = dict(f0=(73.3, 111.7), f1=(158.5, 258.0), f2=(295.8, 396.3), f3=(532.2, 617.7))
# Steps a second of the NF- and the BatchNorm ResNet by depth and batch (NF-ResNets, Table 4; OOM is None).
_RESNETS: Mapping[int, Mapping[int, tuple[float, float] | None]] = {
    50: {16: (17.3, 16.42), 32: (10.5, 9.45), 64: (5.79, 5.24)},
    101: {16: (10.4, 9.4), 32: (6.28, 5.75), 64: (3.46, 3.08)},
    152: {16: (7.02, 5.57), 32: (4.4, 3.95), 64: (2.4, 2.17)},
    200: {16: (5.22, 3.53), 32: (3.26, 2.61), 64: None},
    288: {16: (3.0, 2.25), 32: None, 64: None},
}
# Steps a second of NF-RegNet and EfficientNet at the latter's sizes, by batch (NF-ResNets, Table 5).
_REGNETS: Mapping[str, tuple[int, Mapping[int, tuple[float, float] | None]]] = {
    'b0': (224, {16: (12.2, 5.23), 32: (9.25, 3.61), 64: (6.51, 2.61)}),
    'b1': (240, {16: (9.06, 3.0), 32: (6.5, 2.14), 64: (4.69, 1.55)}),
    'b2': (260, {16: (5.84, 2.22), 32: (4.05, 1.68), 64: (2.7, 1.16)}),
    'b3': (300, {16: (4.49, 1.57), 32: (3.1, 1.05), 64: None}),
    'b4': (380, {16: (2.73, 0.94), 32: None, 64: None}),
    'b5': (456, {16: None, 32: None, 64: None}),
}
# Milliseconds of a step of Mask R-CNN (NFNets, ICML version, Table 5).
_MASK_RCNN = dict(bn_resnet50=818.9, bn_resnet101=883.8, nfnet_f0=968.5, nfnet_f1=1411.4)


def _mask_rcnn(backbone: str, target: float | None = None) -> Row:
    config = 'nfnet_mm::mask_rcnn_{}_fpn.py'.format
    published = round(_MASK_RCNN[backbone] / _MASK_RCNN['bn_resnet50'], 2)
    options = dict(batch=4, size=1024)
    what = f'Mask R-CNN, {backbone} / bn_resnet50 (NFNets, ICML version, Table 5)'
    return Row(what, 'detector', config(backbone), config('bn_resnet50'), None, options, target, published)


def _papers() -> Suite:
    """Every latency of the papers as the ratio that it stands in."""
    rows = [
        Row(
            f'NFNet-{key.upper()} / ResNet-50 (NFNets, Table 3)',
            'train',
            f'nfnet_{key}',
            'bn_resnet50',
            published=None if ms is None else round(ms / _RESNET50, 2),
        )
        for key, ms in _NFNETS.items()
    ]
    for key, (nf, bn) in _BN_NFNETS.items():
        what = f'NFNet-{key.upper()} / the same with BatchNorm (NFNets, Table 6)'
        rows.append(Row(what, 'train', f'nfnet_{key}', f'bn_nfnet_{key}', published=round(nf / bn, 2)))
    rows += [_mask_rcnn(backbone) for backbone in _MASK_RCNN if backbone != 'bn_resnet50']
    for depth, batches in _RESNETS.items():
        for batch, speeds in batches.items():
            what = f'NF- / BN-ResNet-{depth}, batch {batch} (NF-ResNets, Table 4)'
            rows.append(Row(what, 'train', **_nf_resnet(depth, batch=batch), published=_slower(speeds)))
    for key, (size, batches) in _REGNETS.items():
        for batch, speeds in batches.items():
            what = f'NF-RegNet- / EfficientNet-{key.upper()}, batch {batch} (NF-ResNets, Table 5)'
            pair = (f'nf_regnet_{key},agc=False', f'timm/efficientnet_{key}')
            rows.append(Row(what, 'train', *pair, options=dict(batch=batch, size=size), published=_slower(speeds)))
    return Suite("the papers' latencies", tuple(rows), _papers_protocol(), 9)


def _slower(speeds: tuple[float, float] | None) -> float | None:
    """The ratio of the times of two, from their steps a second."""
    return round(speeds[1] / speeds[0], 2) if speeds else None


SUITES: Mapping[str, Callable[[], Suite]] = dict(cpu=_cpu, h200=_h200, papers=_papers)
