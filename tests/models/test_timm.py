"""Every model that timm lists under these papers, with shared random parameters."""

import pytest
import timm
import torch
from torch import nn
from torch.nn import functional as F

from nfnet_mm.converters import from_timm
from nfnet_mm.models import NFNet, NFRegNet, NFResNet
from tests.golden import relative

MODELS = sorted(name for pattern in ('nf*', 'dm_nf*', 'eca_nf*', 'test_nfnet') for name in timm.list_models(pattern))
ONE_OF_EACH_KIND = (
    'dm_nfnet_f0',
    'nfnet_f0',
    'nfnet_l0',
    'eca_nfnet_l0',
    'nf_resnet50',
    'nf_seresnet26',
    'nf_ecaresnet26',
    'nf_regnet_b1',
    'test_nfnet',
)


def ours(name):
    family = NFResNet if 'resnet' in name else NFRegNet if 'regnet' in name else NFNet
    return family(arch=f'timm/{name}', out_indices=(4,)).eval()


def randomize(model):
    """Gains, SkipInit and biases away from their initial values, at which whole branches would be silent."""
    generator = torch.Generator().manual_seed(0)
    for name, p in model.named_parameters():
        if 'gain' in name:
            p.data = 1 + 0.2 * torch.randn(p.shape, generator=generator)
        elif name.endswith('bias'):
            p.data = 0.1 * torch.randn(p.shape, generator=generator)


def test_the_list():
    assert len(MODELS) == 36


@pytest.mark.parametrize('name', MODELS)
def test_parameter_count(name):
    with torch.device('meta'):
        theirs, backbone = timm.create_model(name), ours(name)
    head = nn.Linear(backbone.out_channels[0], 1000, device='meta')
    assert sum(p.numel() for p in theirs.parameters()) == sum(
        p.numel() for p in (*backbone.parameters(), *head.parameters())
    )


@pytest.mark.parametrize(
    'name', [name if name in ONE_OF_EACH_KIND else pytest.param(name, marks=pytest.mark.slow) for name in MODELS]
)
def test_logits(name):
    torch.manual_seed(0)
    theirs = timm.create_model(name).eval()
    randomize(theirs)
    state = from_timm(theirs.state_dict())
    backbone = ours(name)
    backbone.load_state_dict({key[9:]: value for key, value in state.items() if key.startswith('backbone.')})
    for size in ((64, 64), (65, 97), (98, 64)):
        x = torch.randn(1, 3, *size)
        with torch.no_grad():
            logits = F.linear(backbone(x)[0].mean((2, 3)), state['head.fc.weight'], state['head.fc.bias'])
            assert relative(logits, theirs(x)) < 5e-6, size
