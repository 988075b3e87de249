"""AGC on parameters that ``fully_shard`` spread over processes, against the whole ones in one process."""

import pytest
import torch
from torch import distributed, multiprocessing, nn

from nfnet_mm.engine import AGCOptimWrapper, adaptive_clip_grad_
from nfnet_mm.errors import UserError
from nfnet_mm.models import NFResNet

fsdp = pytest.importorskip('torch.distributed.fsdp', exc_type=ImportError)
if not hasattr(fsdp, 'fully_shard'):
    pytest.skip('this PyTorch has no fully_shard', allow_module_level=True)

# 5 channels over two or three processes: unequal parts, and for three of a weight of two rows an empty one
ARCH = dict(depths=(1, 1, 1, 1), widths=(10, 20, 30, 40), stem_channels=5)
IMAGES = 12


def build():
    torch.manual_seed(0)
    net = nn.ModuleDict(dict(backbone=NFResNet(arch=ARCH), fc=nn.Linear(40, 2)))
    for p in net.parameters():  # no gradient is zero, as behind a zero gain
        nn.init.normal_(p, std=0.5) if p.dim() > 1 else nn.init.uniform_(p, 0.5, 1)
    return net


def batch():
    return torch.randn(IMAGES, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def steps(net, images, dtype=torch.float64):
    """Three steps; the clip statistics of each."""
    decayed = [p for p in net.parameters() if p.dim() > 1]
    others = [p for p in net.parameters() if p.dim() < 2]
    optimizer = torch.optim.SGD([dict(params=decayed, weight_decay=1e-3), dict(params=others)], lr=0.1, momentum=0.9)
    told = []
    for _ in range(3):
        optimizer.zero_grad()
        features = net['backbone'](images.to(dtype))[-1].mean((2, 3))
        net['fc'](features).square().sum(1).mean().backward()
        if distributed.is_initialized():
            for p in net.parameters():
                if not p.dim():
                    distributed.all_reduce(p.grad)
                    p.grad /= distributed.get_world_size()
        stats = adaptive_clip_grad_(net.parameters(), clipping=0.02)
        told.append((stats.units, int(stats.clipped), float(stats.min_scale), bool(stats.finite)))
        optimizer.step()
    return told


def sharded(rank, world, folder):
    distributed.init_process_group('gloo', init_method=f'file://{folder}/meet', rank=rank, world_size=world)
    mesh = torch.distributed.device_mesh.init_device_mesh('cpu', (world,))
    net = build().double()
    for module in (*net['backbone'].stages, net['backbone'], net['fc']):
        # which takes no scalars, as SkipInit's: these stay whole on every process
        fsdp.fully_shard(module, mesh=mesh, ignored_params={p for p in net.parameters() if not p.dim()})
    for module in net.modules():
        if isinstance(module, fsdp.FSDPModule):
            module.set_gradient_divide_factor(world)
    told = steps(net, batch()[rank * IMAGES // world : (rank + 1) * IMAGES // world])
    whole = {name: p.full_tensor() if p.dim() else p for name, p in net.named_parameters()}
    # one process alone has a gradient that is not finite: all must know
    for p in net.parameters():
        p.grad = torch.zeros_like(p)
    if rank == world - 1:
        net['backbone'].stem.conv0.weight.grad.to_local().view(-1)[:1] = float('nan')
    finite = [bool(adaptive_clip_grad_(net.parameters(), exclude=skip).finite) for skip in ((), set(net.parameters()))]
    wrapper = AGCOptimWrapper(torch.optim.SGD(net.parameters(), lr=1.0))
    before = net['fc'].weight.to_local().clone()
    net['fc'].weight.grad.to_local().fill_(1.0)
    wrapper.step()
    taken = not torch.equal(net['fc'].weight.to_local(), before) if len(before) else False
    torch.save((told, whole, finite, taken), f'{folder}/{rank}.pth')
    distributed.destroy_process_group()


@pytest.mark.parametrize('world', [2, pytest.param(3, marks=pytest.mark.slow)])
def test_shards_are_clipped_as_the_whole(tmp_path, world):
    net = build().double()
    want = steps(net, batch())
    multiprocessing.spawn(sharded, (world, str(tmp_path)), world)
    for rank in range(world):
        told, whole, finite, taken = torch.load(tmp_path / f'{rank}.pth')
        for (units, clipped, scale, good), (*counts, lowest, fine) in zip(told, want):
            assert [units, clipped] == counts and scale == pytest.approx(lowest, rel=1e-6) and good == fine
        for name, p in net.named_parameters():
            torch.testing.assert_close(whole[name], p.detach(), rtol=1e-6, atol=1e-9)
        assert finite == [False, False] and not taken
    assert 0 < want[0][1] < want[0][0]  # some are clipped


def test_what_tears_units_apart_is_refused(tmp_path):
    from torch.distributed.tensor import Shard, distribute_tensor

    distributed.init_process_group('gloo', init_method=f'file://{tmp_path}/meet', rank=0, world_size=1)
    try:
        mesh = torch.distributed.device_mesh.init_device_mesh('cpu', (1,))
        columns = nn.Parameter(distribute_tensor(torch.ones(2, 3), mesh, [Shard(1)]))
        columns.grad = torch.ones_like(columns)
        with pytest.raises(UserError, match=r'shape \(2, 3\) is sharded as \(Shard\(dim=1\),\), which tears its units'):
            adaptive_clip_grad_([columns])
        rows = nn.Parameter(distribute_tensor(torch.ones(2, 3, 1, 1), mesh, [Shard(0)]))
        rows.grad = torch.ones_like(rows)
        with pytest.raises(UserError, match='sharded as a transposed conv by rows'):
            adaptive_clip_grad_([rows], transposed={rows: 1})
    finally:
        distributed.destroy_process_group()
