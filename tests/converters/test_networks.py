"""Which network weights are of, and which files are a run's own, told from names and shapes."""

import pickle

import numpy as np
import pytest
import torch

from nfnet_mm.converters import from_deepmind, load_weights, to_timm
from nfnet_mm.converters.load import Weights
from nfnet_mm.converters.recognise import describe_network, is_run_checkpoint, networks_of
from nfnet_mm.models.backbones.arch import FAMILIES, find_network, network_names
from nfnet_mm.registry import MODELS
from tests.converters.networks import deepmind_tree


def weights_of(name, out_indices=(4,), **options):
    """Of a network of the table, without values."""
    network = find_network(name)
    with torch.device('meta'):
        net = MODELS.build(dict(network.cfg, out_indices=out_indices, **options))
    return Weights('ours', network.arch.dialect, {f'backbone.{k}': v for k, v in net.state_dict().items()})


def found(weights):
    return [network.name for network in networks_of(weights)]


QUICK = [name for name in network_names() if sum(find_network(name).arch.depths) <= 25]


@pytest.mark.parametrize('family', FAMILIES)
def test_every_network_is_told_from_the_others(family):
    names = [name for name in QUICK if find_network(name).family == family]
    assert names
    for name in names:
        assert found(weights_of(name)) == [name]


def test_a_file_may_lack_parts():
    assert found(weights_of('nfnet_f1', out_indices=(0, 1, 2, 3))) == ['nfnet_f1']  # a detector's
    assert found(weights_of('nfnet_f1', out_indices=(2,))) == ['nfnet_f1']  # a C4 detector's
    assert found(weights_of('nf_resnet50', in_channels=1)) == ['nf_resnet50']
    # ResNet-50 and 101 have the same first two stages, and what the file holds beside the backbone does not matter
    weights = weights_of('nf_resnet50', out_indices=(1,))
    weights.state_dict['neck.conv.weight'] = torch.zeros(1)
    assert found(weights) == ['nf_resnet50', 'nf_resnet101']
    assert describe_network(weights) == 'nf_resnet50 or nf_resnet101'


def test_other_numbers_are_no_network_of_the_table():
    weights = weights_of('nfnet_nano')
    del weights.state_dict['backbone.stages.2.0.skip_gain']
    assert found(weights) == []
    wide = weights_of('nfnet_nano')
    wide.state_dict['backbone.stages.1.0.conv1.weight'] = torch.zeros(32, 8, 3, 3)
    assert found(wide) == []
    tree = from_deepmind(deepmind_tree())
    assert describe_network(Weights('deepmind', 'authors', tree)) == (
        'a normalizer-free network that has no name, of 1, 2, 1, 1 blocks of 8, 16, 16, 24 channels'
    )


@pytest.fixture(scope='module')
def nano():
    torch.manual_seed(0)
    net = MODELS.build(dict(type='nfnet_mm.NFNet', arch='nano', out_indices=(4,)))
    state = {f'backbone.{key}': value for key, value in net.state_dict().items()}
    return state | {'head.fc.weight': torch.randn(5, 256), 'head.fc.bias': torch.randn(5)}


def test_files_of_a_run_and_others(tmp_path, nano):
    timms = to_timm(nano)
    backbone = {key.removeprefix('backbone.'): value for key, value in nano.items() if key.startswith('backbone.')}
    meta = dict(epoch=1, time=np.float64(1))
    weights = {
        'timm': timms,
        'timm, from DataParallel': {f'module.{key}': value for key, value in timms.items()},
        'timm, as others save it': dict(state_dict=timms, epoch=3),
        'converted': dict(state_dict=nano, meta=dict(nfnet_mm_version='0.3.0', dialect='authors')),
        'bare': nano,
    }
    runs = {
        'run': dict(state_dict=nano, meta=meta),
        'detector': dict(state_dict={**backbone, 'neck.weight': torch.zeros(1)}, meta=meta),
        'bare detector': {**{f'backbone.{key}': value for key, value in backbone.items()}, 'neck.a': torch.zeros(1)},
        'backbone': backbone,
        'timm inside a wrapper': {f'backbone.timm_model.{key}': value for key, value in timms.items()},
        'other': dict(state_dict={'linear.weight': torch.zeros(1)}),
        'empty': {},
        'list': [1],
    }
    for zipped in (True, False):
        for name, content in {**weights, **runs}.items():
            torch.save(content, tmp_path / name, _use_new_zipfile_serialization=zipped)
            assert is_run_checkpoint(tmp_path / name) == (name in runs), (name, zipped)
    whole = (tmp_path / 'run').read_bytes()
    for content in (whole[:2000], b'PK\x03\x04', b'', b'text', pickle.dumps(dict(a=1))):
        (tmp_path / 'file').write_bytes(content)
        assert not is_run_checkpoint(tmp_path / 'file')


def test_networks_of_files(tmp_path, nano):
    torch.save(to_timm(nano), tmp_path / 'timm.pth')
    assert found(load_weights(tmp_path / 'timm.pth')) == ['nfnet_nano']
    assert found(load_weights(tmp_path / 'timm.pth', dialect='timm')) == []
