"""The papers' baselines: against the authors' own modules, and in the uses of a backbone."""

import copy
import pickle

import pytest
import torch
from torch.nn.functional import cross_entropy

from nfnet_mm.analysis.cost import cost
from nfnet_mm.errors import UserError
from nfnet_mm.models import BNNFNet, BNResNet, FixupResNet, NFStage, SkipInitResNet
from nfnet_mm.models.backbones.arch import find_network
from nfnet_mm.models.layers import BatchNorm2d
from nfnet_mm.swap.swap import swap_config
from tests.golden import BASELINES, Golden, relative

RESNET = dict(widths=(8, 16, 16, 32), depths=(1, 2, 1, 1), stem_channels=4)
NFNET = dict(widths=(16, 16, 32, 32), depths=(1, 2, 1, 1), group_width=4, stem_channels=(2, 4, 4, 8), final_channels=24)
KINDS = {
    'preact': lambda **kwargs: BNResNet(arch=RESNET, **kwargs),
    'postact': lambda **kwargs: BNResNet(arch=RESNET, preact=False, **kwargs),
    'norm_last': lambda **kwargs: BNResNet(arch=RESNET, norm_first=False, attention='se', **kwargs),
    'nfnet': lambda **kwargs: BNNFNet(arch=NFNET, **kwargs),
    'fixup': lambda **kwargs: FixupResNet(arch=RESNET, **kwargs),
    'skipinit': lambda **kwargs: SkipInitResNet(arch=RESNET, **kwargs),
}
WITH_BN = ('preact', 'postact', 'norm_last', 'nfnet')
ALL = (0, 1, 2, 3, 4)


@pytest.fixture(params=BASELINES)
def golden(request):
    return Golden(request.param)


def build(kind, **kwargs):
    """A network whose every parameter counts: neither branches nor biases are zero."""
    torch.manual_seed(0)
    net = KINDS[kind](**kwargs)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    return net


def images(n=4, size=(64, 64)):
    return torch.randn(n, 3, *size, generator=torch.Generator().manual_seed(1))


def norms(net):
    return [m for m in net.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)]


def averages(net):
    return {name: value.clone() for name, value in net.named_buffers()}


def test_authors_eval_mode(golden):
    model = golden.classifier()
    pool = model.extract_feat(golden.input)[-1]
    if golden.family == 'fixup_resnet':
        pool = pool - model.backbone.bias2  # which the authors add behind it
    assert relative(pool, golden['pool']) < 2e-6
    assert relative(model(golden.input), golden['logits']) < 2e-6


def test_authors_training_step(golden):
    model, exact = golden.classifier().train(), golden.classifier().double().train()
    logits, exact_logits = model(golden.input), exact(golden.input.double())
    # BatchNorm of few values amplifies rounding: the reference itself is up to 3e-6 from the exact logits
    bar = 2e-6 + 2 * relative(golden['train_logits'], exact_logits.detach())
    assert bar < 1e-5 and relative(logits, golden['train_logits']) < bar
    cross_entropy(logits, golden.labels.long()).backward()
    cross_entropy(exact_logits, golden.labels.long()).backward()
    expected, exact_grads = golden.tree('grad'), dict(exact.named_parameters())
    for name, parameter in model.named_parameters():
        reference = expected[name].double()
        bar = 2e-5 * reference.norm()
        if reference.dim() == 0:  # a sum over all pixels, which cancels
            bar += 2 * (reference - exact_grads[name].grad).abs()
        assert (parameter.grad.double() - reference).norm() <= bar, name


def test_signal_propagation(golden):
    """Mean over channels of the squared mean, and of the variance: of the stem's and each block's output."""
    model, signals = golden.classifier(), []
    blocks = [block for stage in model.backbone.stages for block in stage]
    for module in (model.backbone.stem, *blocks):
        module.register_forward_hook(lambda module, inputs, output: signals.append(output))
    with torch.no_grad():
        model(golden.input)
    for i, signal in enumerate(signals):
        assert float(signal.mean((0, 2, 3)).square().mean()) == pytest.approx(
            float(golden[f'metric|avg_sq_mean_{i}']), rel=1e-5
        )
        variance = signal.var((0, 2, 3), correction=0).mean()
        assert float(variance) == pytest.approx(float(golden[f'metric|avg_var_{i}']), rel=1e-5)


def test_averages_are_those_of_all_batches():
    norm, batches = BatchNorm2d(3).train(), [torch.randn(2, 3, 4, 5) * (i + 1) + i for i in range(4)]
    for batch in batches:
        norm(batch)
    weights = torch.tensor([0.9 ** (3 - i) for i in range(4)], dtype=torch.float64)
    for ours, statistics in (
        (norm.running_mean, [b.double().mean((0, 2, 3)) for b in batches]),
        (norm.running_var, [b.double().var((0, 2, 3), correction=0) for b in batches]),
    ):
        expected = (weights[:, None] * torch.stack(statistics)).sum(0) / weights.sum()
        assert torch.allclose(ours.double(), expected, rtol=1e-6)
    assert norm.num_batches_tracked == 4


def test_averages_go_on_after_a_resume():
    batches = [images() + i for i in range(4)]
    whole, half = build('preact'), build('preact')
    for batch in batches:
        whole(batch)
    for batch in batches[:2]:
        half(batch)
    resumed = build('preact')
    resumed.load_state_dict(half.state_dict())
    for batch in batches[2:]:
        resumed(batch)
    assert all(torch.equal(a, b) for a, b in zip(whole.buffers(), resumed.buffers()))


@pytest.mark.parametrize('kind', KINDS)
def test_checkpointing_changes_nothing(kind):
    results = []
    for with_cp in (False, True):
        net = build(kind, with_cp=with_cp, out_indices=(1, 4)).train()
        sum(out.square().mean() for out in net(images())).backward()
        results.append([*(p.grad for p in net.parameters()), *net.buffers()])
    assert all(torch.equal(a, b) for a, b in zip(*results))
    assert all(norm.num_batches_tracked == 1 and norm.momentum > 0 for norm in norms(net))


@pytest.mark.parametrize('kind', KINDS)
def test_every_parameter_has_a_gradient(kind):
    for indices in ((0,), (3,), (4,), ALL):
        net = build(kind, out_indices=indices)
        sum(out.square().mean() for out in net(images(2))).backward()
        assert [name for name, p in net.named_parameters() if p.grad is None] == []
        assert [out.shape[1] for out in net(images(2))] == list(net.out_channels)


@pytest.mark.parametrize('kind', KINDS)
def test_odd_sizes_strides_and_dilations(kind):
    net = build(kind, out_indices=ALL, strides=(1, 2, 2, 1), dilations=(1, 1, 1, 2)).eval()
    assert net.out_strides == (4, 8, 16, 16, 16)
    for n, height, width in ((1, 65, 47), (1, 33, 70), (1, 1, 1)):
        for out, stride in zip(net(images(n, (height, width))), net.out_strides):
            assert out.shape[2:] == (-(-height // stride), -(-width // stride))
            assert out.isfinite().all()


def test_what_the_outputs_are():
    net = build('preact', out_indices=(3, 4)).eval()
    last, feature = net(images())
    assert last.min() < 0 and torch.equal(feature, net.final_bn(last).relu())
    net = build('postact', out_indices=(3, 4)).eval()
    last, feature = net(images())
    assert last.min() == 0 and torch.equal(feature, last)
    net = build('fixup', out_indices=(3, 4))
    last, feature = net(images())
    assert last.min() == 0 and torch.equal(feature, last + net.bias2)
    assert not [key for key in build('preact').state_dict() if key.startswith('final')]


def test_the_order_of_norm_and_activation():
    """A block by hand, with each order."""
    for norm_first in (True, False):
        torch.manual_seed(2)
        block = BNResNet(arch=RESNET, norm_first=norm_first).stages[1][1].eval()
        for i, norm in enumerate(norms(block)):
            torch.nn.init.normal_(norm.running_mean)
            torch.nn.init.constant_(norm.bias, 0.3 * (i - 1))
        x = torch.randn(2, 16, 9, 9)
        out = x
        for conv, norm in ((block.conv0, block.bn0), (block.conv1, block.bn1), (block.conv2, block.bn2)):
            out = conv(norm(out).relu() if norm_first else norm(out.relu()))
        assert torch.allclose(block(x), x + out, atol=1e-6)


@pytest.mark.parametrize('kind', WITH_BN)
def test_norm_eval(kind):
    net = build(kind, norm_eval=True, out_indices=ALL).train()
    before = averages(net)
    outs = net(images())
    assert net.training and net.stages[0].training and not any(norm.training for norm in norms(net))
    assert all(torch.equal(before[name], value) for name, value in net.named_buffers())
    assert all(torch.equal(a, b) for a, b in zip(outs, net.eval()(images())))


@pytest.mark.parametrize('kind', WITH_BN)
def test_frozen_stages_keep_their_averages(kind):
    net = build(kind, frozen_stages=2, out_indices=ALL).train()
    before = averages(net)
    sum(out.mean() for out in net(images())).backward()
    frozen = ('stem', 'stages.0', 'stages.1')
    for name, value in net.named_buffers():
        assert torch.equal(before[name], value) == name.startswith(frozen), name
    for name, parameter in net.named_parameters():
        assert parameter.requires_grad != name.startswith(frozen), name


@pytest.mark.parametrize('kind', KINDS)
def test_dropped_branches_leave_the_shortcut(kind):
    """Of four samples through a block of rate 0.5, some are dropped; the others are not rescaled."""
    net = build(kind, drop_path_rate=0.8, norm_eval=True) if kind in WITH_BN else build(kind, drop_path_rate=0.8)
    rates = [block.drop_path_rate for stage in net.stages for block in stage]
    assert rates == pytest.approx([0, 0.16, 0.32, 0.48, 0.64])
    block = net.train().stages[3][0]
    block.drop_path_rate = 0.5
    x = torch.randn(16, block.conv0.in_channels, 8, 8)
    kept, out = copy.deepcopy(block).eval()(x), block(x)
    same = [torch.allclose(a, b, atol=1e-5) for a, b in zip(out, kept)]
    assert 0 < sum(same) < 16


@pytest.mark.parametrize('kind', KINDS)
def test_one_sample_and_half_precision(kind):
    net = build(kind, out_indices=ALL).train()
    exact = copy.deepcopy(net)(images(1, (96, 96)))
    with torch.autocast('cpu', torch.bfloat16):
        outs = net(images(1, (96, 96)))
    assert all(relative(out, reference) < 0.1 for out, reference in zip(outs, exact))
    sum(out.float().mean() for out in outs).backward()
    assert all(p.grad.isfinite().all() for p in net.parameters())
    assert all(norm.running_mean.dtype == torch.float32 for norm in norms(net))


def test_statistics_of_one_value_are_refused():
    net = build('preact').train()
    with pytest.raises(UserError, match=r'shape \(1, 4, 1, 1\) has one value per channel.*norm_eval=True'):
        net(images(1, (16, 16)))
    assert build('preact', norm_eval=True).train()(images(1, (16, 16)))[-1].shape == (1, 32, 1, 1)


def test_synchronised_batch_norm():
    net = torch.nn.SyncBatchNorm.convert_sync_batchnorm(build('postact', norm_eval=True, frozen_stages=0))
    assert {type(norm) for norm in norms(net)} == {torch.nn.SyncBatchNorm}
    assert not any(norm.training for norm in norms(net.train()))
    assert torch.equal(net.eval()(images())[-1], build('postact').eval()(images())[-1])


@pytest.mark.parametrize('kind', KINDS)
def test_pickles_and_copies(kind):
    net = build(kind, out_indices=(4,)).eval()
    for other in (pickle.loads(pickle.dumps(net)), copy.deepcopy(net)):
        assert torch.equal(other(images())[0], net(images())[0])


@pytest.mark.slow
@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('with_cp', [False, True])
def test_compiles_in_one_graph(kind, with_cp):
    torch.compiler.reset()  # networks of one class share a limit of recompilations
    net = build(kind, out_indices=(0, 4), with_cp=with_cp).train()
    compiled = torch.compile(copy.deepcopy(net), fullgraph=True, backend='aot_eager')
    for _ in range(2):
        ours, theirs = net(images()), compiled(images())
        assert all(relative(a, b.detach()) < 1e-5 for a, b in zip(ours, theirs))
    sum(out.square().mean() for out in theirs).backward()
    assert all(torch.allclose(a.float(), b.float(), atol=1e-5) for a, b in zip(net.buffers(), compiled.buffers()))


def test_initial_weights():
    torch.manual_seed(0)
    net = BNResNet(depth=50, out_indices=(4,))
    weight = net.stages[3][1].conv1.weight
    deviation = (512 * 9) ** -0.5  # cut at two of them, which leaves 0.8796
    assert float(weight.detach().std()) == pytest.approx(0.8796 * deviation, rel=0.01)
    assert float(weight.detach().abs().max()) <= 2 * deviation
    assert all((norm.weight == 1).all() and (norm.bias == 0).all() for norm in norms(net))

    block = FixupResNet(depth=50).stages[1][0]
    for conv, expected in ((block.conv0, (2 / 128) ** 0.5 / 2), (block.conv1, (2 / 9 / 128) ** 0.5 / 2)):
        assert float(conv.weight.detach().std()) == pytest.approx(expected, rel=0.03)  # 16 blocks: 16^(-1/4) = 1/2
    assert float(block.conv_shortcut.weight.detach().std()) == pytest.approx((2 / 512) ** 0.5, rel=0.03)
    assert not block.conv2.weight.any()


def test_costs():
    network = find_network('bn_resnet50')
    spent = cost(network.family, network.key, 224)
    convs = 25_557_032 - 2 * 26_560  # torchvision's ResNet-50 without the 26,560 channels of its norms
    before = 64 + 2 * 256 + 256 + 3 * 512 + 512 + 5 * 1024 + 1024 + 2 * 2048  # what bn0 of the blocks reads
    inside = 2 * (3 * 64 + 4 * 128 + 6 * 256 + 3 * 512)
    assert spent.parameters == convs + 2 * (before + inside + 2048)
    assert spent.macs / 1e9 == pytest.approx(4.09, abs=0.01)  # torchvision's; the strides are in the same convs
    skipinit = cost('SkipInitResNet', '50', 224)
    biases = 64 * 6 + 128 * 8 + 256 * 12 + 512 * 6 + 256 * 4 + 512 * 5 + 1024 * 7 + 2048 * 4
    assert skipinit.parameters == convs + biases + 16 and skipinit.macs == spent.macs
    assert cost('FixupResNet', '50', 224).parameters == convs + 16 * 7 + 2
    nfnet, ours = cost('NFNet', 'F0', 256), cost('BNNFNet', 'F0', 256)
    assert ours.macs == nfnet.macs and 0 < nfnet.parameters - ours.parameters < 0.002 * nfnet.parameters


@pytest.mark.parametrize(
    'make, message',
    [
        (lambda: BNResNet(depth=51), "BNResNet arch '51' is unknown"),
        (lambda: BNResNet(depth=50, alpha=0.2), 'alpha=0.2'),
        (lambda: BNResNet(preact=False, norm_first=False), 'norm_first'),
        (lambda: BNResNet(arch=dict(RESNET, dialect='timm')), 'dialect'),
        (lambda: FixupResNet(arch=dict(RESNET, final_channels=8)), 'final_channels'),
        (lambda: BNResNet(arch=dict(RESNET, attention='se'), attention='eca'), 'states its own attention'),
        (lambda: FixupResNet(depth=50, out_indices=(5,)), 'out_indices'),
        (lambda: NFStage(dict(type='nfnet_mm.BNResNet', depth=50)), 'none of a normalizer-free network'),
        (
            lambda: swap_config(dict(model=dict(backbone=dict(type='ResNet'))), 'bn_resnet50'),
            'a baseline of the papers',
        ),
    ],
)
def test_refusals(make, message):
    with pytest.raises(UserError, match=message):
        make()
