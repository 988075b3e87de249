"""Every family against the authors' own modules, in float32."""

import pytest
import torch
from mmengine.optim import build_optim_wrapper

from tests.golden import BACKBONES, Golden, relative


@pytest.fixture(params=BACKBONES)
def golden(request):
    return Golden(request.param)


def test_forward(golden):
    model = golden.classifier()
    with torch.no_grad():
        pool = model.extract_feat(golden.input)[-1]
        logits = model(golden.input)
    assert relative(pool, golden['pool']) < 2e-6
    assert relative(logits, golden['logits']) < 2e-6


def test_gradients(golden):
    model = golden.classifier().train()  # no stochastic depth, no dropout in the reference
    loss = torch.nn.functional.cross_entropy(model(golden.input), golden.labels)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(float(golden['loss1']), rel=2e-6)
    expected = golden.tree('grad')
    ours = dict(model.named_parameters())
    assert ours.keys() == expected.keys()
    errors = {name: relative(ours[name].grad, grad) for name, grad in expected.items()}
    worst = max(errors, key=errors.get)
    assert errors[worst] < 2e-5, worst


def test_three_agc_sgd_steps(golden):
    model = golden.classifier().train()
    wrapper = build_optim_wrapper(
        model,
        dict(
            type='nfnet_mm.AGCOptimWrapper',
            constructor='nfnet_mm.NFOptimWrapperConstructor',
            optimizer=dict(type='SGD', lr=0.1, momentum=0.9, nesterov=True, weight_decay=2e-5),
            agc=dict(clipping=0.01, eps=1e-3),
        ),
    )
    for step in (1, 2, 3):
        loss = torch.nn.functional.cross_entropy(model(golden.input), golden.labels)
        assert float(loss.detach()) == pytest.approx(float(golden[f'loss{step}']), rel=1e-5)
        wrapper.update_params(loss)
    expected = golden.tree('step3')
    ours = model.state_dict()
    errors = {name: relative(ours[name], value) for name, value in expected.items()}
    worst = max(errors, key=errors.get)
    assert errors[worst] < 2e-6, (worst, errors[worst])


def test_checkpointing_changes_nothing(golden):
    gradients = []
    for with_cp in (False, True):
        model = golden.classifier(with_cp=with_cp).train()
        torch.nn.functional.cross_entropy(model(golden.input), golden.labels).backward()
        gradients.append([p.grad for p in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients))
