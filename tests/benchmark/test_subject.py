"""The steps that are measured do what they are called: against loops by hand, and timm's own modules."""

import copy
import dataclasses

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nfnet_mm.benchmark.implementations import Implementation, find_implementation
from nfnet_mm.benchmark.measures import MEASURES, _standardised
from nfnet_mm.benchmark.subject import Settings, Subject, Unmeasured, has_fused_sgd
from nfnet_mm.benchmark.timing import in_turns
from nfnet_mm.engine.agc import adaptive_clip_grad_

ON_CPU = Settings('cpu', 'float32', 'contiguous', batch=2, size=32)
PAIR = ['nfnet_nano', 'timm/test_nfnet']


def subject(name, **options):
    return Subject(find_implementation(name), Settings(**{**vars(ON_CPU), **options}), classes=5)


def step_by_hand(one, clip):
    """A training step of a copy of the network."""
    network = copy.deepcopy(one.network)
    loss = F.cross_entropy(network(one.images), one.labels)
    loss.backward()
    clip(network)
    decayed = [p for name, p in network.named_parameters() if p.dim() > 1 and not name.endswith('gain')]
    rest = [p for p in network.parameters() if not any(p is other for other in decayed)]
    groups = [dict(params=decayed, weight_decay=2e-5), dict(params=rest, weight_decay=0)]
    torch.optim.SGD(groups, lr=1e-3, momentum=0.9, nesterov=True).step()
    return network


def clipped_by_us(network):
    found = adaptive_clip_grad_([p for n, p in network.named_parameters() if n != 'fc.weight'], 0.01, 1e-3)
    assert found.clipped > 0


def clipped_by_timm(network):
    from timm.utils.agc import adaptive_clip_grad

    adaptive_clip_grad([p for n, p in network.named_parameters() if not n.startswith('head.fc.')], 0.01, 1e-3)


@pytest.mark.parametrize('name, clip', zip(PAIR, (clipped_by_us, clipped_by_timm)))
@pytest.mark.parametrize('micro_batches', [1, 3])
def test_a_training_step(name, clip, micro_batches):
    """Of one batch, or of the same three times, whose mean gradient is that of one."""
    pytest.importorskip('timm')
    one = subject(name, micro_batches=micro_batches)
    before = copy.deepcopy(one.network)
    expected = step_by_hand(one, clip)
    one.train_step()
    for (key, p), other in zip(one.network.named_parameters(), expected.parameters()):
        torch.testing.assert_close(p, other, rtol=1e-5, atol=1e-7, msg=key)
    assert any(not torch.equal(p, start) for p, start in zip(one.network.parameters(), before.parameters()))


def test_without_clipping_the_whole_gradient_is_stepped():
    one = subject('nfnet_nano,agc=False')
    expected = step_by_hand(one, lambda network: None)
    one.train_step()
    for p, other in zip(one.network.parameters(), expected.parameters()):
        torch.testing.assert_close(p, other, rtol=1e-5, atol=1e-7)


def test_half_precision_steps_are_near_those_of_float32():
    single, half = subject('nfnet_nano'), subject('nfnet_nano', dtype='bfloat16')
    assert half.loss().dtype is torch.float32
    assert float(half.loss()) == pytest.approx(float(single.loss()), rel=0.02)
    assert half.evaluate().dtype is torch.bfloat16


@pytest.mark.parametrize('name', PAIR)
@pytest.mark.parametrize('measure', ['agc', 'agc-all'])
def test_clipping_meets_no_unit_or_all(name, measure):
    """By the definition: a unit's gradient is scaled to 0.01 max(|W|, 1e-3), or is left as it is."""
    pytest.importorskip('timm')
    one = subject(name)
    timed = MEASURES[measure].timed(one)
    timed.prepare()
    before = [p.grad.clone() for p in one.parameters]
    timed.run()
    named = list(one.network.named_parameters())
    assert len(named) > 40
    for (key, p), grad in zip(named, before):
        if measure == 'agc' or key in ('fc.weight', 'head.fc.weight', 'head.fc.bias'):
            assert torch.equal(p.grad, grad), key
            continue
        rows = (lambda t: t.flatten(1)) if p.dim() > 1 else (lambda t: t.reshape(1, -1))
        limit = 0.01 * rows(p.detach()).norm(dim=1).clamp(min=1e-3)
        torch.testing.assert_close(rows(p.grad).norm(dim=1), limit, rtol=1e-5, atol=0, msg=key)
        assert (rows(grad).norm(dim=1) > limit).all()


@pytest.mark.parametrize('name', PAIR)
def test_the_standardised_weights_are_those_that_the_convs_apply(name):
    """Of an image that is lit at one pixel, a conv shows its weight: each tap, turned around, and its bias."""
    pytest.importorskip('timm')
    convs = [m for m in subject(name).network.modules() if _standardised(m) is not None]
    assert len(convs) > 15
    for conv in convs:
        conv.gain.data.uniform_(0.5, 2)
        k, n = conv.kernel_size[0], conv.in_channels // conv.groups
        conv.stride = (1, 1)  # of which neither package's forward pass keeps a copy
        size, middle = 4 * k + 1, 2 * k
        images = torch.zeros(n, conv.in_channels, size, size)
        for i in range(n):
            images[i, i::n, middle, middle] = 1  # channel i of every group
        taps = conv(images) - conv.bias[:, None, None]
        half = k // 2
        seen = taps[..., middle - half : middle + half + 1, middle - half : middle + half + 1].flip((2, 3))
        torch.testing.assert_close(seen.transpose(0, 1), _standardised(conv), rtol=1e-4, atol=1e-5)


class Toy(nn.Module):
    """Mean and a linear layer."""

    def __init__(self, classes):
        super().__init__()
        self.fc = nn.Linear(3, classes)

    def forward(self, x):
        return self.fc(x.mean((2, 3)))


@pytest.mark.skipif(not has_fused_sgd('cpu'), reason='the optimizer has other operations there')
def test_launches_of_a_toy():
    """By hand: mean, linear, log-softmax and loss; one of the loss's gradient, the backward of the last three, in which
    the linear layer has one for its weight and one for its bias; the optimizer's step of each of its two groups."""
    one = Subject(Implementation('toy', 32, None, Toy, {}), Settings(**{**vars(ON_CPU), 'fused': True}), classes=5)
    assert MEASURES['launches'].counted(one) == 4 + (1 + 1 + 1 + 2) + 2


def test_what_cannot_be_measured_says_so():
    one = Subject(Implementation('toy', 32, None, Toy, {}), ON_CPU, classes=5)
    for measure, why in (('agc', 'toy has no adaptive'), ('ws', 'toy has no standardised'), ('graph', '--device cuda')):
        with pytest.raises(Unmeasured, match=why):
            MEASURES[measure].timed(one)
    for measure, why in (('peak', 'peak memory'), ('syncs', 'on a CPU'), ('graph-launches', '--device cuda')):
        with pytest.raises(Unmeasured, match=why):
            MEASURES[measure].counted(one)
    one.settings = dataclasses.replace(ON_CPU, compiled='default')
    for measure in ('held', 'launches'):
        with pytest.raises(Unmeasured, match='compiled code dispatches no operations'):
            MEASURES[measure].counted(one)


def test_sides_take_turns():
    """Warm-ups aside, A B A B; each after its preparation."""
    from nfnet_mm.benchmark.timing import Timed

    order = []
    sides = [Timed(lambda n=n: order.append(n), 'cpu', lambda n=n: order.append(n.upper())) for n in 'ab']
    samples = in_turns(sides, pairs=3)
    assert ''.join(order) == 'AaAa' + 'BbBb' + 'AaBb' * 3 and [len(one) for one in samples] == [3, 3]
