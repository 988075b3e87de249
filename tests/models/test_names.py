"""One name for each network, and the old spellings that still work."""

import pytest
import torch

from nfnet_mm.errors import UserError
from nfnet_mm.models import NFNet, NFResNet
from nfnet_mm.models.backbones.arch import FAMILIES, find_network, network_names, resolve_arch


def test_every_network_has_one_name():
    names, rows = network_names(), [row for _, rows in FAMILIES.values() for row in rows.values()]
    assert len(names) == len(set(names)) == len(rows) == len({*map(repr, rows)})
    assert names[:4] == ['nfnet_f0', 'nfnet_f0+', 'timm/nfnet_f0', 'timm/dm_nfnet_f0']
    for name in names:
        network = find_network(name)
        assert network.name == name
        assert network.arch.method != 'nf' or find_network(network.key) == network
        assert network.arch is resolve_arch(network.family, network.key)


@pytest.mark.parametrize(
    'spelling, name, cfg',
    [
        ('F0', 'nfnet_f0', dict(type='nfnet_mm.NFNet', arch='F0')),
        ('f0+', 'nfnet_f0+', dict(type='nfnet_mm.NFNet', arch='F0+')),
        ('nfnet_nano', 'nfnet_nano', dict(type='nfnet_mm.NFNet', arch='nano')),
        ('timm/nfnet_l0', 'nfnet_l0', dict(type='nfnet_mm.NFNet', arch='L0')),
        ('ECA-L0', 'eca_nfnet_l0', dict(type='nfnet_mm.NFNet', arch='ECA-L0')),
        ('timm/eca_nfnet_l3', 'eca_nfnet_l3', dict(type='nfnet_mm.NFNet', arch='ECA-L3')),
        ('NF_ResNet50', 'nf_resnet50', dict(type='nfnet_mm.NFResNet', depth=50)),
        ('timm/nf_resnet50', 'timm/nf_resnet50', dict(type='nfnet_mm.NFResNet', arch='timm/nf_resnet50')),
        ('nf_seresnet50', 'timm/nf_seresnet50', dict(type='nfnet_mm.NFResNet', arch='timm/nf_seresnet50')),
        ('test_nfnet', 'timm/test_nfnet', dict(type='nfnet_mm.NFNet', arch='timm/test_nfnet')),
        ('b1', 'nf_regnet_b1', dict(type='nfnet_mm.NFRegNet', arch='B1')),
        ('50', 'nf_resnet50', dict(type='nfnet_mm.NFResNet', depth=50)),
        ('bn_resnet50', 'bn_resnet50', dict(type='nfnet_mm.BNResNet', depth=50)),
        ('fixup_resnet288', 'fixup_resnet288', dict(type='nfnet_mm.FixupResNet', depth=288)),
        ('skipinit_resnet50', 'skipinit_resnet50', dict(type='nfnet_mm.SkipInitResNet', depth=50)),
        ('BN_NFNet_F0', 'bn_nfnet_f0', dict(type='nfnet_mm.BNNFNet', arch='F0')),
    ],
)
def test_a_name_without_a_family(spelling, name, cfg):
    network = find_network(spelling)
    assert (network.name, network.cfg) == (name, cfg)


@pytest.mark.parametrize(
    'family, spelling, key',
    [
        ('NFNet', 'dm_nfnet_f0', 'timm/dm_nfnet_f0'),
        ('NFNet', 'test_nfnet', 'timm/test_nfnet'),
        ('NFNet', 'nfnet_l0', 'L0'),
        ('NFNet', 'timm/nfnet_l0', 'L0'),
        ('NFNet', 'eca_nfnet_l1', 'ECA-L1'),
        ('NFNet', 'nfnet_f0+', 'F0+'),
        ('NFResNet', 'nf_seresnet50', 'timm/nf_seresnet50'),
        ('NFResNet', 'nf_resnet600', '600'),
        ('NFRegNet', 'nf_regnet_b6', 'B6'),
    ],
)
def test_other_spellings_in_a_family(family, spelling, key):
    assert resolve_arch(family, spelling) is FAMILIES[family][1][key]


@pytest.mark.parametrize(
    'family, spelling, paper, timm',
    [
        ('NFNet', 'nfnet_f0', 'F0', 'timm/nfnet_f0'),
        ('NFResNet', 'nf_resnet50', '50', 'timm/nf_resnet50'),
        ('NFRegNet', 'nf_regnet_b1', 'B1', 'timm/nf_regnet_b1'),
    ],
)
def test_a_name_of_two_networks_is_refused(family, spelling, paper, timm):
    with pytest.raises(UserError, match=f"'{spelling}' .*'{paper}' for the paper's network, '{timm}' for timm's"):
        resolve_arch(family, spelling)
    assert resolve_arch(family, paper) != resolve_arch(family, timm)


def test_unknown_names():
    for spelling in ('timm/nf_resnet600', 'timm/nfnet_f0+', 'timm/F0', 'nfnet_f9'):
        with pytest.raises(UserError, match="is unknown. Did you mean '.* Known: nfnet_f0, .*timm/nf_regnet_b5"):
            find_network(spelling)
    with pytest.raises(UserError, match="NFResNet arch '51' is unknown. Did you mean '50'"):
        NFResNet(51)
    with pytest.raises(UserError, match="NFNet arch 'timm/nfnet_f0\\+' is unknown"):
        NFNet('timm/nfnet_f0+')


def test_networks_of_timm_by_depth():
    """Their attention is their own: with ``attention`` they would become the paper's shape without a word."""
    with torch.device('meta'):
        net = NFResNet('timm/nf_resnet50')
    assert net.arch is find_network('timm/nf_resnet50').arch
    with pytest.raises(UserError, match="attention='se' goes with depth; arch='timm/nf_resnet50' states its own"):
        NFResNet('timm/nf_resnet50', attention='se')


def test_hints_know_every_spelling():
    with pytest.raises(UserError, match="'ECA_NFNET_L0' is unknown. Did you mean 'eca_nfnet_l0'"):
        NFNet('ECA_NFNET_L0')
    with pytest.raises(UserError, match='backbone 51 is unknown'):
        find_network(51)
