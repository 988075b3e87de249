"""The tables of docs/scaling.md: the networks' own counts, through the formulas of :mod:`.scaling`."""

from collections.abc import Iterator
from pathlib import Path

from nfnet_mm.models.backbones.arch import Network, find_network
from nfnet_mm.recipes import setting

from .cost import cost
from .model_zoo import table, with_results
from .scaling import STATE_BYTES, Device, Fabric, Update, checkpoint_interval, lost_share, update

_PAGE = 'docs/scaling.md'
# NVIDIA's data sheet of the H100 SXM: 989 TFLOP/s, 3.35 TB/s, of which a stream reaches about 80%. The utilisation is
# that of the V100 times of NFNets, Table 3, for F0 to F3: 24-28 of its 125 TFLOP/s.
H100 = Device('H100', flops=989e12, utilisation=0.2, memory=0.8 * 3.35e12)
V100_FLOPS = 125e12
V100_SECONDS = {'nfnet_f0': 56.7e-3, 'nfnet_f1': 133.9e-3, 'nfnet_f2': 226.3e-3, 'nfnet_f3': 524.5e-3}  # of 32 images
FABRICS = (
    Fabric('8 x 400 Gb/s InfiniBand', node=8 * 50e9),
    Fabric('400 Gb/s InfiniBand', node=50e9),
    Fabric('100 Gb/s Ethernet', node=12.5e9),
)
NETWORKS = (*(f'nfnet_f{n}' for n in range(7)), 'nf_resnet50')
GPUS = (8, 64, 256, 1024)
TOTAL_BATCH, MOST = 4096, 32  # the NFNets' recipe; NF-ResNet-50's with AGC has it too
# 419 unexpected interruptions in 54 days on 16,384 H100s (Llama 3, 2024, section 3.3.4).
GPU_HOURS_BETWEEN_FAILURES = 16384 * 54 * 24 / 419
DISK = 1e9  # bytes a second that a checkpoint is written with


def update_of(name: str, gpus: int, fabric: Fabric = FABRICS[0], gradient_bytes: int = 4) -> Update:
    """An update of a network in the recipe of the page."""
    network: Network = find_network(name)
    spent = cost(network.family, network.key, setting(network).train_size)
    return update(spent.macs, spent.parameters, gpus, TOTAL_BATCH, MOST, H100, fabric, gradient_bytes=gradient_bytes)


def _updates() -> Iterator[tuple[object, ...]]:
    for name in NETWORKS:
        for gpus in GPUS:
            one = update_of(name, gpus)
            parts = (one.compute, one.all_reduce, one.exposed, one.agc, one.optimizer)
            batch = f'{one.batch} x {one.accumulated}'
            rate = f'{TOTAL_BATCH / gpus / one.seconds:.0f}'
            efficiency = f'{100 * one.compute / one.seconds:.0f}'
            yield f'`{name}`', gpus, batch, *(f'{part * 1e3:.1f}' for part in parts), rate, efficiency


def _fabrics() -> Iterator[tuple[object, ...]]:
    for name in NETWORKS:
        for gpus in GPUS[1:]:
            cells = []
            for fabric in FABRICS:
                for size in (4, 2):
                    one = update_of(name, gpus, fabric, size)
                    cells.append(f'{100 * one.exposed / one.seconds:.0f}')
            yield f'`{name}`', gpus, *cells


def _checkpoints() -> Iterator[tuple[object, ...]]:
    for name in ('nf_resnet50', 'nfnet_f0', 'nfnet_f6'):
        network = find_network(name)
        write = STATE_BYTES * cost(network.family, network.key, setting(network).train_size).parameters / DISK
        for gpus in GPUS:
            between = GPU_HOURS_BETWEEN_FAILURES * 3600 / gpus
            interval = checkpoint_interval(write, between)
            updates = interval / update_of(name, gpus).seconds
            lost = 100 * lost_share(interval, write, between)
            cells = f'{between / 86400:.1f}', f'{write:.1f}', f'{interval / 60:.0f}', f'{updates:.0f}', f'{lost:.2f}'
            yield f'`{name}`', gpus, *cells


def scaling_files(root: Path) -> dict[str, str]:
    """{path from the root of a working tree: its text} of the page."""
    sends = ' | '.join(f'{fabric.name}, {kind}' for fabric in FABRICS for kind in ('float32', 'bfloat16'))
    head = (
        'Network | GPUs | Batch x accumulated | Compute (ms) | All-reduce (ms) | of it exposed (ms) | AGC (ms) | '
        'Optimizer, EMA (ms) | Images a second per GPU | Compute (%)'
    )
    text = [
        f'### An update, over {FABRICS[0].name} a node\n',
        table(head, _updates()),
        '### The exposed all-reduce, in per cent of the update\n',
        table(f'Network | GPUs | {sends}', _fabrics()),
        '### Checkpoints\n',
        table(
            'Network | GPUs | Days between failures | Write (s) | Interval (min) | in updates | Time lost (%)',
            _checkpoints(),
        ),
    ]
    return {_PAGE: with_results((root / _PAGE).read_text(), '\n'.join(text))}
