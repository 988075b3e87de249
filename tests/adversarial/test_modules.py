"""Every network module put through the ways people use modules, each against the plain way.

A new module is a row of ``MODULES``; a new situation is a test over all of them.
"""

import copy
import io
import pickle

import pytest
import torch
from mmengine.registry import MODELS

from tests.golden import BACKBONES, BASELINES

pytestmark = pytest.mark.slow
TIMM = dict(dialect='timm', padding='symmetric', gain_in_conv=True, skip_init=False)

# module: (config, shape of its input without the batch, whether its samples are independent in training)
MODULES = {
    'NFNet': (dict(BACKBONES['nfnet'], out_indices=(0, 1, 2, 3, 4)), (3, 37, 50), True),
    'NFNet of timm': (
        dict(type='nfnet_mm.NFNet', arch=dict(BACKBONES['nfnet']['arch'], attention='eca', **TIMM)),
        (3, 37, 50),
        True,
    ),
    'NFNet of one channel': (dict(BACKBONES['nfnet'], in_channels=1), (1, 40, 33), True),
    'NFNet at other strides': (dict(BACKBONES['nfnet'], strides=(1, 3, 2, 4)), (3, 61, 70), True),
    'NFNet dilated': (dict(BACKBONES['nfnet'], strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4)), (3, 40, 33), True),
    'NFResNet': (dict(BACKBONES['nf_resnet'], out_indices=(0, 1, 2, 3, 4)), (3, 37, 50), True),
    'NFRegNet': (dict(BACKBONES['nf_regnet'], out_indices=(1, 3, 4)), (3, 37, 50), True),
    'NFStage': (dict(type='nfnet_mm.NFStage', backbone=BACKBONES['nfnet'], stage=3, stride=2), (48, 7, 7), True),
    'BNResNet': (dict(BASELINES['bn_seresnet'], out_indices=(0, 1, 2, 3, 4)), (3, 37, 50), False),
    'BNResNet, post-activation': (dict(BASELINES['bn_resnet_post'], out_indices=(0, 4)), (3, 37, 50), False),
    'BNNFNet': (dict(type='nfnet_mm.BNNFNet', arch=BACKBONES['nfnet']['arch'], out_indices=(2, 4)), (3, 37, 50), False),
    'FixupResNet': (dict(BASELINES['fixup_resnet'], out_indices=(0, 1, 2, 3, 4)), (3, 37, 50), True),
    'SkipInitResNet': (dict(BASELINES['skipinit_resnet'], out_indices=(1, 4)), (3, 37, 50), True),
}


def built(name, **more):
    cfg, *_ = MODULES[name]
    torch.manual_seed(0)
    module = MODELS.build(dict(cfg, **more))
    with torch.no_grad():
        for key, p in module.named_parameters():
            if p.dim() == 0:
                p.fill_(0.5)  # SkipInit scalars start at zero, which would hide the branches
            elif key.endswith('conv2.gain') and not p.any():
                p.fill_(0.5)
    return module


def images(name, n=3):
    return torch.randn(n, *MODULES[name][1], generator=torch.Generator().manual_seed(1))


def outputs(module, x):
    out = module(x)
    return list(out) if isinstance(out, (tuple, list)) else [out]


def grads(module, x, dtype=torch.float32):
    module.zero_grad()
    sum(o.to(dtype).square().mean() for o in outputs(module, x)).backward()
    return {key: p.grad.clone() for key, p in module.named_parameters() if p.grad is not None}


def assert_same(ours, reference, rtol=1e-4, atol=1e-5):
    for a, b in zip(ours, reference, strict=True):
        torch.testing.assert_close(a, b, rtol=rtol, atol=atol)


over_all = pytest.mark.parametrize('name', MODULES)


@over_all
@pytest.mark.parametrize('training', [True, False])
def test_a_sample_alone_and_in_a_batch(name, training):
    module, x = built(name).train(training), images(name)
    if training and not MODULES[name][2]:
        pytest.skip('normalises over the batch')
    with torch.no_grad():
        assert_same([o[1:2] for o in outputs(module, x)], outputs(module, x[1:2]))


@over_all
def test_an_empty_batch(name):
    """Detectors have none in a picture without proposals."""
    module = built(name).eval()
    outs = outputs(module, images(name)[:0])
    assert [o.shape[1:] for o in outs] == [o.shape[1:] for o in outputs(module, images(name))]
    sum(o.sum() for o in outs).backward()
    assert all(p.grad is None or not p.grad.any() for p in module.parameters())


@over_all
def test_memory_layouts_and_views(name):
    module, x = built(name).eval(), images(name)
    reference = outputs(module, x)
    wide = torch.randn(*x.shape[:3], 2 * x.shape[3])
    wide[..., ::2] = x
    other = x.transpose(0, 1).contiguous().transpose(0, 1)
    for view in (x.to(memory_format=torch.channels_last), wide[..., ::2], other):
        assert_same(outputs(module, view), reference)
    module = copy.deepcopy(module).to(memory_format=torch.channels_last)
    assert_same(outputs(module, x.to(memory_format=torch.channels_last)), reference)


@over_all
def test_the_input_is_left_as_it_was(name):
    module, x = built(name), images(name)
    before = x.clone()
    outputs(module.train(), x)
    assert torch.equal(x, before)


@over_all
def test_precisions(name):
    module, x = built(name).eval(), images(name)
    with torch.no_grad():
        reference = outputs(copy.deepcopy(module).double(), x.double())
        assert_same([o.double() for o in outputs(module, x)], reference)
        with torch.autocast('cpu', torch.bfloat16):
            autocast = outputs(module, x)
        for half in (autocast, outputs(copy.deepcopy(module).bfloat16(), x.bfloat16())):
            for a, b in zip(half, reference, strict=True):
                assert float((a.double() - b).norm() / b.norm()) < 0.05


@over_all
def test_gradients_in_float64_and_under_autocast(name):
    module, x = built(name).eval(), images(name)
    reference = grads(copy.deepcopy(module).double(), x.double(), torch.float64)
    ours = grads(module, x)
    with torch.autocast('cpu', torch.bfloat16):
        half = grads(module, x)
    for key, value in reference.items():
        assert float((ours[key].double() - value).norm()) <= 1e-3 * float(value.norm()) + 1e-6, key
    whole = [torch.cat([g[key].double().flatten() for key in reference]) for g in (half, reference)]
    assert float((whole[0] - whole[1]).norm() / whole[1].norm()) < 0.15
    assert {g.dtype for g in half.values()} == {torch.float32}


@over_all
def test_copies(name):
    module, x = built(name).eval(), images(name)
    reference = outputs(module, x)
    file = io.BytesIO()
    torch.save(module.state_dict(), file)
    file.seek(0)
    fresh = MODELS.build(MODULES[name][0]).eval()
    fresh.load_state_dict(torch.load(file, weights_only=True))
    for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module)), fresh):
        assert_same(outputs(other, x), reference, 0, 0)


@over_all
@pytest.mark.parametrize('inside', ['', 'backbone.', 'teacher.backbone.'])
def test_weights_from_a_checkpoint_that_holds_more(name, inside, tmp_path):
    module, x = built(name).eval(), images(name)
    whole = module
    if name == 'NFStage':  # its weights are a part of the network's
        whole = MODELS.build(dict(BACKBONES['nfnet'], out_indices=(3,)))
        whole.load_state_dict({**whole.state_dict(), **module.state_dict()})
    state = {inside + key: value for key, value in whole.state_dict().items()}
    state.update({f'student.{key}': value + 1 for key, value in whole.state_dict().items()} if inside else {})
    torch.save(dict(state_dict=state, meta=dict(dialect='timm' if 'timm' in name else 'authors')), tmp_path / 'w.pth')
    prefix = inside if 'teacher' in inside else None
    fresh = MODELS.build(
        dict(
            MODULES[name][0],
            init_cfg=dict(type='nfnet_mm.NFPretrained', checkpoint=str(tmp_path / 'w.pth'), prefix=prefix),
        )
    )
    fresh.init_weights()
    assert_same(outputs(fresh.eval(), x), outputs(module, x), 0, 0)


@over_all
def test_traced_and_saved(name, tmp_path):
    module, x = built(name).eval(), images(name)
    torch.jit.trace(module, x, check_trace=False).save(tmp_path / 'traced.pt')
    assert_same(outputs(torch.jit.load(tmp_path / 'traced.pt'), x), outputs(module, x))


@over_all
def test_inference_mode_and_no_grad(name):
    module, x = built(name).eval(), images(name)
    reference = [o.detach() for o in outputs(module, x)]
    for context in (torch.inference_mode(), torch.no_grad()):
        with context:
            assert_same(outputs(module, x), reference, 0, 0)
    grads(module, x)  # nothing kept from inference mode is in the way of training


@over_all
def test_used_twice_in_one_graph(name):
    """As in siamese and teacher-student models: the gradient is the sum of both uses'."""
    module, x = built(name).eval(), images(name)
    alone = [grads(module, part) for part in (x[:1], x[1:])]
    module.zero_grad()
    sum(o.square().mean() for part in (x[:1], x[1:]) for o in outputs(module, part)).backward()
    for key, p in module.named_parameters():
        if key in alone[0]:
            torch.testing.assert_close(p.grad, alone[0][key] + alone[1][key], rtol=1e-4, atol=1e-6)


@over_all
def test_recomputed_activations(name):
    if name == 'NFStage':
        pytest.skip('has no with_cp')
    plain, again, x = built(name).train(), built(name, with_cp=True).train(), images(name)
    again.load_state_dict(plain.state_dict())
    ours, reference = grads(again, x), grads(plain, x)
    assert ours.keys() == reference.keys()
    assert_same(ours.values(), reference.values(), 1e-4, 1e-6)


@over_all
@pytest.mark.parametrize('stages', [0, 2])
def test_frozen_parts(name, stages):
    if name == 'NFStage':
        pytest.skip('has no frozen_stages')
    free, frozen, x = built(name).eval(), built(name, frozen_stages=stages).eval(), images(name)
    frozen.load_state_dict(free.state_dict())
    ours, reference = grads(frozen, x), grads(free, x)
    assert ours and len(ours) < len(reference)
    for key, grad in ours.items():
        torch.testing.assert_close(grad, reference[key], rtol=1e-4, atol=1e-6)
    left = {key for key in reference if key not in ours}
    assert left == {
        key
        for key in left
        if key.startswith(('stem', 'conv1', 'bn1'))
        or any(key.startswith((f'stages.{i}.', f'layer{i + 1}.')) for i in range(stages))
    }


@over_all
def test_functional_gradients(name):
    """The gradients that torch.func computes are backward's."""
    module, x = built(name).eval(), images(name)
    reference = grads(module, x)
    params = {key: p.detach() for key, p in module.named_parameters()}
    buffers = dict(module.named_buffers())

    def loss(params):
        out = torch.func.functional_call(module, (params, buffers), (x,))
        return sum(o.square().mean() for o in (out if isinstance(out, (tuple, list)) else [out]))

    for key, grad in torch.func.grad(loss)(params).items():
        if key in reference:
            torch.testing.assert_close(grad, reference[key], rtol=1e-3, atol=1e-5)
