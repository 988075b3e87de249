import copy
import logging
import math

import numpy as np
import pytest
import torch
from mmengine.logging import MMLogger
from mmengine.registry import MODELS
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from nfnet_mm.models import NFNet, NFRegNet, NFResNet
from nfnet_mm.models.backbones.arch import FAMILIES, resolve_arch
from nfnet_mm.models.layers import activation_gain
from tests.golden import relative

TINY = dict(widths=(16, 32, 48, 48), depths=(1, 2, 2, 1), group_width=8)
# NFNets, Table 1 (millions, 1000 classes; G multiply-adds at the test size)
PARAMS = dict(F0=71.5, F1=132.6, F2=193.8, F3=254.9, F4=316.1, F5=377.2, F6=438.4)


def meta(family, *args, **kwargs):
    with torch.device('meta'):
        return family(*args, **kwargs)


def count(model):
    return sum(p.numel() for p in model.parameters())


def random_gains(model, seed=0):
    """Away from the initial zeros and ones, so that every branch counts."""
    generator = torch.Generator().manual_seed(seed)
    for name, p in model.named_parameters():
        if name.endswith('gain'):
            p.data = 1 + 0.2 * torch.randn(p.shape, generator=generator)
    return model


@pytest.mark.parametrize('arch', PARAMS)
def test_parameters_of_the_paper(arch):
    backbone = meta(NFNet, arch, out_indices=(4,))
    head = 1000 * backbone.out_channels[0] + 1000
    assert round((count(backbone) + head) / 1e6, 1) == PARAMS[arch]
    if arch == 'F0':
        assert count(backbone) + head == 71_489_284


@pytest.mark.parametrize(
    'arch, size, macs, rel', [('F0', 256, 12.38, 0.01), ('F4+', 512, 367, 0.002)]
)  # NFNets, Tables 3 and 5
def test_multiply_adds_of_the_paper(arch, size, macs, rel):
    model = torch.nn.Sequential(meta(NFNet, arch, out_indices=(4,)))
    with FlopCounterMode(display=False) as counter:
        model(torch.empty(1, 3, size, size, device='meta'))
    classifier = model[0].out_channels[0] * 1000
    assert (counter.get_total_flops() / 2 + classifier) / 1e9 == pytest.approx(macs, rel=rel)


def test_plus_variants_are_wider():
    plus, plain = FAMILIES['NFNet'][1]['F4+'], FAMILIES['NFNet'][1]['F4']
    assert plus.widths == (384, 768, 2048, 2048)
    assert plus.depths == plain.depths
    backbone = meta(NFNet, 'F4+', out_indices=(4,))
    assert round((count(backbone) + 4096 * 1000 + 1000) / 1e6) == 527  # NFNets, Table 5


@pytest.mark.parametrize('size', [(64, 64), (65, 63), (96, 33), (50, 70)])
@pytest.mark.parametrize(
    'family, arch',
    [
        (NFNet, TINY),
        (NFResNet, dict(widths=(16, 32, 64, 64), depths=(1, 2, 1, 1))),
        (NFRegNet, dict(widths=(16, 24, 32, 48), depths=(1, 1, 2, 1))),
    ],
)
def test_output_shapes_are_what_the_backbone_says(family, arch, size):
    net = family(arch=arch, out_indices=(0, 1, 2, 3, 4)).eval()
    outs = net(torch.randn(2, 3, *size))
    assert net.out_strides == (4, 8, 16, 32, 32)
    for out, channels, stride in zip(outs, net.out_channels, net.out_strides):
        assert out.shape == (2, channels, math.ceil(size[0] / stride), math.ceil(size[1] / stride))


@pytest.mark.parametrize(
    'strides', [(1, 1, 1, 1), (4, 2, 2, 2), (1, 3, 2, 2), (1, 2, 2, 4), (3, 4, 1, 2), (2, 1, 3, 3)]
)
@pytest.mark.parametrize(
    'family, arch',
    [
        (NFNet, dict(TINY, depths=(1, 1, 2, 1))),
        (NFRegNet, dict(widths=(16, 24, 32, 48), depths=(1, 1, 2, 1))),
        (NFResNet, dict(widths=(16, 32, 64, 64), depths=(1, 2, 1, 1))),
        (NFNet, 'timm/test_nfnet'),
        (
            NFResNet,
            dict(
                widths=(16, 32, 64, 64),
                depths=(1, 2, 1, 1),
                dialect='timm',
                padding='symmetric',
                stem_pool='symmetric',
                shortcut_pool=True,
            ),
        ),
    ],
    ids=['nfnet', 'nf_regnet', 'nf_resnet', 'timm', 'timm_resnet'],
)
def test_any_stride_gives_the_size_that_the_backbone_says(family, arch, strides):
    net = random_gains(family(arch=arch, strides=strides, out_indices=(0, 1, 2, 3, 4))).eval()
    for size in ((32, 33), (35, 47), (41, 31), (7, 1)):
        with torch.no_grad():
            outs = net(torch.randn(1, 3, *size))
        stride = net.arch.stem_stride
        for out, told, own in zip(outs, net.out_strides, (*strides, 1)):
            stride *= own
            assert told == stride
            assert out.shape[-2:] == (math.ceil(size[0] / stride), math.ceil(size[1] / stride))


@pytest.mark.parametrize('training', [True, False])
def test_an_output_does_not_depend_on_the_rest_of_the_batch(training):
    net = random_gains(NFNet(TINY, out_indices=(0, 3, 4))).train(training)
    x = torch.randn(8, 3, 64, 64)
    with torch.no_grad():
        together = net(x)
        alone = [torch.cat(parts) for parts in zip(*(net(x[i : i + 1]) for i in range(8)))]
    for a, b in zip(together, alone):
        assert relative(a, b) < 1e-6


def test_signal_stays_scaled():
    """NF-ResNets, section 3: the variance after a block is 1 + alpha^2 per block, reset to 1 at each transition."""
    torch.manual_seed(0)
    net = NFNet(
        dict(widths=(64, 128, 256, 256), depths=(1, 3, 3, 2), group_width=32, attention=None),
        act='relu',
        out_indices=(0, 1, 2, 3),
    ).eval()
    for block in (b for stage in net.stages for b in stage):
        torch.nn.init.ones_(block.skip_gain)
    with torch.no_grad():
        outs = net(torch.randn(4, 3, 128, 128))
    # 2x2 pooling of the shortcut lowers its variance, so only what the branches add on top is pinned: stage 0
    variance = float(outs[0].var(dim=(0, 2, 3)).mean())
    assert variance == pytest.approx(1 + 0.2**2, rel=0.2)


def test_dilation_keeps_the_resolution():
    net = NFNet(TINY, strides=(1, 2, 2, 1), dilations=(1, 1, 1, 2), out_indices=(2, 3))
    assert net.out_strides == (16, 16)
    assert [m.dilation for m in (net.stages[3][0].conv1, net.stages[3][0].conv1b)] == [(2, 2), (2, 2)]
    a, b = net(torch.randn(1, 3, 65, 64))
    assert a.shape[-2:] == b.shape[-2:] == (5, 4)
    assert net.state_dict().keys() == NFNet(TINY).state_dict().keys() | set(net.state_dict())
    assert {k: v.shape for k, v in net.state_dict().items()} == {
        k: v.shape for k, v in NFNet(TINY).state_dict().items()
    }


@pytest.mark.parametrize('frozen', [-1, 0, 1, 4])
def test_frozen_stages(frozen):
    net = NFNet(TINY, frozen_stages=frozen, drop_path_rate=0.3).train()
    parts = [net.stem, *net.stages]
    for i, part in enumerate(parts):
        assert all(p.requires_grad == (i > frozen) for p in part.parameters())
        assert part.training == (i > frozen)
    outs = net(torch.randn(2, 3, 64, 64))
    if frozen < 4:
        outs[-1].sum().backward()
        assert net.stages[3][0].conv0.weight.grad is not None
    assert net.stem.conv0.weight.grad is None or frozen == -1


def test_frozen_random_weights_are_warned_of():
    records = []
    logger = MMLogger.get_instance('frozen_test')
    logger.addFilter(lambda record: records.append(record) or True)

    def warnings(net):
        records.clear()
        net.init_weights()
        return [
            record.getMessage()
            for record in records
            if record.levelno == logging.WARNING and 'frozen' in record.getMessage()
        ]

    for frozen, what in ((0, 'the stem'), (1, 'the stem and the first stage'), (3, 'the stem and the first 3 stages')):
        net = NFNet('nano', frozen_stages=frozen)
        (said,) = warnings(net)
        assert said.startswith(f'NFNet: frozen_stages={frozen} freezes {what} with random weights')
        assert "init_cfg=dict(type='nfnet_mm.NFPretrained', checkpoint=...)" in said and 'or frozen_stages=-1' in said
        assert warnings(net) == []  # once
    assert warnings(NFNet('nano')) == []
    assert warnings(NFNet('nano', frozen_stages=1, init_cfg=dict(type='Normal', layer='Linear'))) == []


def test_final_conv_exists_only_when_asked_for():
    assert not any(k.startswith('final_conv') for k in NFNet(TINY).state_dict())
    assert NFNet(TINY, out_indices=(4,)).final_conv.gain.shape == (96,)
    # and no stage is built that nothing reads, which DDP would refuse
    assert len(NFNet(TINY, out_indices=(0, 1)).stages) == 2


def test_stochastic_depth_averages_to_the_scaled_branch():
    """Dropping without rescaling: the mean over masks is shortcut + (1 - rate) * branch."""
    net = random_gains(NFNet(dict(TINY, depths=(1, 1, 1, 1)), drop_path_rate=0.5))
    block = net.stages[3][0]
    assert block.drop_path_rate == 0.375
    x = torch.randn(1, 48, 4, 4).expand(4096, -1, -1, -1)
    with torch.no_grad():
        branch = block.eval()(x[:1])
        shortcut = block.conv_shortcut(torch.nn.functional.avg_pool2d(block.act(x[:1]), 2))
        torch.manual_seed(0)
        mean = block.train()(x).mean(0, keepdim=True)
    assert torch.allclose(mean, shortcut + 0.625 * (branch - shortcut), atol=0.02)


def test_checkpointing_repeats_the_same_stochastic_depth():
    x, gradients = torch.randn(4, 3, 64, 64), []
    net = random_gains(NFNet(TINY, drop_path_rate=0.5)).train()
    for with_cp in (False, True):
        net.with_cp = with_cp
        net.zero_grad()
        torch.manual_seed(3)
        net(x)[-1].square().sum().backward()
        gradients.append(copy.deepcopy([p.grad for p in net.parameters()]))
    assert all(torch.equal(a, b) for a, b in zip(*gradients))


def test_bfloat16_autocast_stays_close():
    net = random_gains(NFNet(TINY)).eval()
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        full = net(x)[-1]
        with torch.autocast('cpu', dtype=torch.bfloat16):
            half = net(x)[-1]
    assert half.dtype == torch.bfloat16
    assert relative(half, full) < 0.03


@pytest.mark.parametrize('with_cp', [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    'build',
    [
        lambda **kw: NFNet(TINY, **kw),
        lambda **kw: NFResNet(dict(widths=(16, 32, 64, 64), depths=(1, 2, 1, 1)), **kw),
        lambda **kw: NFRegNet(dict(widths=(16, 24, 32, 48), depths=(1, 2, 2, 1)), **kw),
        lambda **kw: NFNet(dict(TINY, dialect='timm', padding='symmetric', skip_init=False), **kw),
    ],
    ids=['nfnet', 'nf_resnet', 'nf_regnet', 'timm'],
)
def test_a_full_graph_compiles_to_the_same_gradients(build, with_cp):
    torch._dynamo.reset()
    net = random_gains(build(out_indices=(1, 3), with_cp=with_cp).double())
    x = torch.randn(2, 3, 65, 64, dtype=torch.float64)
    gradients = []
    for model in (net, torch.compile(net, backend='aot_eager', fullgraph=True)):
        net.zero_grad()
        sum(out.square().mean() for out in model(x)).backward()
        gradients.append({name: p.grad for name, p in net.named_parameters()})
    eager, compiled = gradients
    assert {
        name: relative(compiled[name], grad)
        for name, grad in eager.items()
        if not torch.allclose(compiled[name], grad, rtol=1e-9, atol=1e-12)
    } == {}


@pytest.mark.parametrize('scope', ['mmdet', 'mmseg', 'mmpretrain', 'mmengine'])
def test_builds_from_any_default_scope(scope):
    with MODELS.switch_scope_and_registry(scope) as registry:
        assert type(registry.build(dict(type='nfnet_mm.NFNet', arch='nano'))) is NFNet


@pytest.mark.parametrize(
    'kwargs, message',
    [
        (dict(arch='F9'), r"NFNet arch 'F9' is unknown. Did you mean 'F\d'\? Known: F0, F0\+, .*ECA-L3.*nano"),
        (dict(arch='f0'), "Did you mean 'F0'"),
        (dict(arch=3), 'arch=3 must be a name or a dict'),
        (dict(arch=dict(width=(1, 2, 3, 4))), "arch field 'width' is unknown. Did you mean 'widths'"),
        (dict(arch=dict(widths=(16, 32, 48))), r'arch field widths=\(16, 32, 48\) must be 4 positive integers'),
        (dict(arch=dict(widths='wide')), "arch field widths='wide' must be 4"),
        (dict(arch=dict(depths=(1, 2, 0, 1))), r'arch field depths=\(1, 2, 0, 1\)'),
        (dict(arch=dict(depths=(1, 2, 1.5, 1))), 'arch field depths'),
        (dict(arch=dict(attention='cbam')), "arch field attention='cbam' must be one of"),
        (dict(arch=dict(se_ratio=-1)), 'arch field se_ratio=-1 must be a positive number'),
        (dict(arch=dict(group_width=1000)), 'arch field group_width=1000 is wider than the bottleneck'),
        (dict(arch=dict(stem_channels=())), r'arch field stem_channels=\(\)'),
        (dict(arch=dict(dialect='keras')), "arch field dialect='keras'"),
        (dict(out_indices=(0, 5)), r'out_indices=\(0, 5\) holds 5, which is out of range: 0-3 are the stages'),
        (dict(out_indices=(-1,)), 'holds -1'),
        (dict(out_indices=3), r'out_indices=3 must be a sequence .*\(3,\)'),
        (dict(out_indices=()), 'increasing and not empty'),
        (dict(out_indices=(2, 1)), 'increasing'),
        (dict(frozen_stages=5), 'frozen_stages=5 is out of range'),
        (dict(frozen_stages=-2), 'frozen_stages=-2'),
        (dict(strides=(1, 2, 2)), r'strides=\(1, 2, 2\) must have one entry for each of the 4 stages'),
        (dict(dilations=(1, 1, 1, 0)), r'dilations\[3\]=0'),
        (dict(in_channels=0), 'in_channels=0'),
        (dict(drop_path_rate=1.0), 'drop_path_rate=1.0'),
        (dict(alpha=0), 'alpha=0'),
        (dict(act='gleu'), "act='gleu'"),
    ],
)
def test_bad_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        meta(NFNet, **dict(dict(arch=TINY), **kwargs))


@pytest.mark.parametrize('shape', [(2, 4, 32, 32), (3, 32, 32), (2, 32, 32, 3)])
def test_wrong_images(shape):
    with pytest.raises(ValueError, match=r'shape \(N, 3, H, W\) \(in_channels=3\), got \(' + str(shape[0])):
        NFNet(TINY)(torch.zeros(shape))


def test_arguments_are_not_changed():
    arch = dict(widths=[16, 32, 48, 48], group_width=8)
    indices = [0, 3]
    before = copy.deepcopy((arch, indices))
    meta(NFNet, arch, out_indices=indices)
    assert (arch, indices) == before
    assert resolve_arch('NFNet', arch).widths == (16, 32, 48, 48)


@pytest.mark.parametrize(
    'act',
    [nn.ReLU(inplace=True), nn.Hardswish(inplace=True), torch.relu_, lambda x: nn.functional.silu(x, inplace=True)],
)
def test_an_activation_that_overwrites_its_input_is_refused(act):
    with pytest.raises(ValueError, match='overwrites its input, which is read again as the shortcut'):
        NFNet('nano', act=act)


def test_computed_gains_on_the_meta_device():
    with torch.device('meta'):
        assert NFNet('nano', act='mish').act_gain == NFNet('nano', act=nn.Mish()).act_gain
    assert NFNet('nano', act='mish').act_gain == pytest.approx(activation_gain('mish'))


def test_numpy_s_integers_are_integers():
    net = NFNet(
        'nano',
        in_channels=np.int64(3),
        out_indices=np.array([0, 2]),
        frozen_stages=np.int64(1),
        strides=np.array([1, 2, 2, 2]),
    )
    assert (net.out_indices, net.frozen_stages, net.out_channels, net.strides) == ((0, 2), 1, (32, 96), (1, 2, 2, 2))
    assert {type(i) for i in (net.in_channels, net.frozen_stages, *net.out_indices, *net.strides)} == {int}


@pytest.mark.parametrize(
    'argument, value, message',
    [
        ('alpha', '0.2', "alpha='0.2' must be a positive finite number"),
        ('alpha', float('inf'), 'alpha=inf must be'),
        ('alpha', float('nan'), 'alpha=nan must be'),
        ('drop_path_rate', None, r'drop_path_rate=None must lie in \[0, 1\)'),
        ('frozen_stages', None, 'frozen_stages=None is out of range'),
        ('strides', 2, 'strides=2 must have one entry for each of the 4 stages'),
        ('dilations', None, 'dilations=None must have one entry for each of the 4 stages'),
        ('out_indices', None, 'out_indices=None must be a sequence of integers'),
    ],
)
def test_arguments_of_another_kind(argument, value, message):
    with pytest.raises(ValueError, match=message):
        NFNet('nano', **{argument: value})


@pytest.mark.parametrize(
    'field, value, message',
    [
        ('regnet', True, "'regnet' is called 'inverted_bottleneck'"),
        (
            'se_ratio',
            0.001,
            'arch field se_ratio=0.001 leaves nothing of the 256 channels that Squeeze-Excite weighs in stage 0',
        ),
        ('act', 'swish', "act='swish' is no known activation"),
        ('final_channels', 0.5, 'arch field final_channels=0.5 must be a positive integer or None'),
        ('test_size', 256, "arch field 'test_size' is unknown"),
    ],
)
def test_fields_of_another_kind(field, value, message):
    with pytest.raises(ValueError, match=message):
        NFNet({field: value})


def test_fields_may_be_numpys():
    net = NFNet(dict(final_channels=np.int64(100), group_width=np.int32(64)), out_indices=(4,))
    assert type(net.out_channels[0]) is int and net.stages[1][0].conv1.groups == 4
