"""The model zoo against the papers, timm, the files on disk and the OpenMMLab tools that read them."""

from pathlib import Path

import pytest
import timm
import torch
import yaml
from torch.utils.flop_counter import FlopCounterMode

from nfnet_mm.analysis.cost import cost
from nfnet_mm.analysis.model_zoo import METAFILES, networks, recipes, zoo_files
from nfnet_mm.analysis.published import ACCURACIES
from nfnet_mm.converters import PUBLIC_WEIGHTS
from nfnet_mm.models.backbones.arch import FAMILIES, Network, find_network
from nfnet_mm.recipes import IMAGENET, setting
from nfnet_mm.registry import MODELS

ROOT = Path(__file__).parents[2]
TIMM_NAMES = [name.removeprefix('timm/') for name in PUBLIC_WEIGHTS if name.startswith('timm/')]
# Millions of parameters, G multiply-adds at the test size: NFNets, Table 3; NF-ResNets, Table 3.
PAPERS = {
    'NFNet': dict(
        F0=(71.5, 12.38),
        F1=(132.6, 35.54),
        F2=(193.8, 62.59),
        F3=(254.9, 114.76),
        F4=(316.1, 215.24),
        F5=(377.2, 289.76),
        F6=(438.4, 377.28),
    ),
    'NFRegNet': dict(
        B0=(8.6, 0.44), B1=(10.0, 0.73), B2=(13.8, 1.10), B3=(18.1, 2.00), B4=(29.3, 4.47), B5=(48.7, 10.56)
    ),
}


@pytest.fixture(scope='module')
def files():
    return zoo_files()


@pytest.fixture(scope='module')
def models(files):
    """{name: model} of all metafiles."""
    return {model['Name']: model for path in METAFILES.values() for model in yaml.safe_load(files[path])['Models']}


def test_files_are_up_to_date(files):
    stale = [path for path, text in files.items() if not (ROOT / path).exists() or (ROOT / path).read_text() != text]
    assert not stale, f'{stale} differ from the tables: run python tools/write_configs.py'


@pytest.mark.parametrize('family, arch', [(family, arch) for family, rows in PAPERS.items() for arch in rows])
def test_against_the_papers(family, arch):
    parameters, macs = PAPERS[family][arch]
    network = Network(family, arch)
    spent = cost(family, arch, setting(network).test_size)
    assert round(spent.parameters / 1e6, 1) == parameters
    # 272 and 456 px give odd sizes on the way down, where the paper counts less than SAME padding costs.
    assert spent.macs / 1e9 == pytest.approx(macs, rel=0.06 if arch in ('B2', 'B5') else 0.01)


@pytest.mark.parametrize('family, arch', [('NFNet', 'F2'), ('NFResNet', '101'), ('NFRegNet', 'B3')])
def test_counting_two_blocks_of_each_stage_is_enough(family, arch):
    size = 65
    with torch.device('meta'):
        key = 'depth' if arch.isdecimal() else 'arch'
        net = MODELS.build({'type': f'nfnet_mm.{family}', key: arch, 'out_indices': (4,)})
        model = torch.nn.Sequential(net, Pool(), torch.nn.Linear(net.out_channels[0], 1000))
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model(torch.empty(1, 3, size, size))
    spent = cost(family, arch, size)
    assert spent.parameters == sum(p.numel() for p in model.parameters())
    assert spent.macs == counter.get_total_flops() / 2


class Pool(torch.nn.Module):
    def forward(self, features):
        return features[0].mean((2, 3))


@pytest.mark.parametrize('file', [f for f in TIMM_NAMES if not f.startswith(('dm_nfnet_f5', 'dm_nfnet_f6'))])
def test_against_timm(file):
    name = file.split('.')[0]
    with torch.device('meta'):
        theirs = timm.create_model(name).eval()
    network = find_network(f'timm/{name}')
    size = setting(network).test_size
    spent = cost(network.family, network.key, size)
    assert spent.parameters == sum(p.numel() for p in theirs.parameters())
    if not name.startswith('dm_nfnet'):  # their sizes are those of the paper
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            theirs(torch.empty(1, 3, size, size, device='meta'))
        assert spent.macs == counter.get_total_flops() / 2


def test_public_weights_are_those_of_timm_and_deepmind():
    listed = {name for pattern in ('nf*', 'dm_nf*', 'eca_nf*', 'test_nfnet*') for name in timm.list_pretrained(pattern)}
    assert set(TIMM_NAMES) == listed
    deepminds = [f'deepmind/F{n}' for n in range(7)] + [f'deepmind/nfnet_f{n}_im21k' for n in (0, 1, 3)]
    assert [w.name for w in PUBLIC_WEIGHTS.values() if w.owner == 'DeepMind'] == deepminds
    assert all(find_network(weights.network).name == weights.network for weights in PUBLIC_WEIGHTS.values())
    assert PUBLIC_WEIGHTS.keys() - ACCURACIES.keys() == {*deepminds, 'timm/test_nfnet.r160_in1k'}
    assert ACCURACIES.keys() < PUBLIC_WEIGHTS.keys()


def test_every_config_exists_and_is_listed_once(files, models):
    configs = [model['Config'] for name, model in models.items() if '_3rdparty' not in name]
    assert configs and all((ROOT / config).is_file() for config in configs)
    assert sorted(configs) == sorted(recipe.config for family in FAMILIES for recipe in recipes(family))
    others = [recipe.config for recipe in IMAGENET.values() if recipe.pretraining]
    assert sorted([*configs, *others]) == sorted(
        f'configs/imagenet/{p.name}' for p in ROOT.glob('configs/imagenet/*.py')
    )
    assert all(f'[{Path(config).stem}](../{config})' in files['docs/model_zoo.md'] for config in (*configs, *others))
    assert yaml.safe_load(files['model-index.yml']) == dict(Import=list(METAFILES.values()))


def test_every_accuracy_of_the_papers_finds_its_config(models):
    reported = {name: row for name, row in IMAGENET.items() if row.accuracy}
    for name, row in reported.items():
        (result,) = models[f'{name}_in1k']['Results']
        assert result['Metrics']['Top 1 Accuracy'] == row.top1 and result['Source'] == row.source
    assert sum('Results' in m for n, m in models.items() if '_3rdparty' not in n) == len(reported) == 92


def test_one_model_in_full(models):
    assert models['nfnet_f0_in1k'] == {
        'Name': 'nfnet_f0_in1k',
        'In Collection': 'NFNet',
        'Config': 'configs/imagenet/nfnet_f0.py',
        'Metadata': {'FLOPs': 12384198656, 'Parameters': 71489284, 'Image Size': 256},
        'Results': [
            {
                'Task': 'Image Classification',
                'Dataset': 'ImageNet-1k',
                'Source': 'NFNets, Table 3',
                'Metrics': {'Top 1 Accuracy': 83.6, 'Top 5 Accuracy': 96.8},
            }
        ],
    }
    assert models['nfnet_f0_3rdparty_in1k']['Converted From']['Weights'] == 'deepmind/F0'
    assert models['finetune_nf_resnet50_384px_in1k']['Metadata']['Image Size'] == 384
    # The weights of timm's nf_resnet50 are of another shape than the paper's, and no config here builds it.
    assert 'nf_resnet50_3rdparty_in1k' not in models


def test_no_address_is_given_for_weights(files):
    assert all('Weights: http' not in text and not text.count('.npz"') for text in files.values())


def test_the_page_has_every_network(files):
    page = files['docs/model_zoo.md']
    for network in (network for family in FAMILIES for network in networks(family)):
        (line,) = [ln for ln in page.splitlines() if ln.startswith(f'| `{network.name}` |')]
        size = setting(network).test_size
        parameters = cost(network.family, network.key, size).parameters
        assert f'| {size} | {parameters / 1e6:.2f} |' in line
    assert '| `nf_resnet50` | `depth=50` |' in page and "| `nfnet_f4+` | `arch='F4+'` |" in page
    assert all(len(line) <= 120 for line in page.splitlines() if not line.startswith(('|', '[')))


def test_mmpretrain_reads_the_index(monkeypatch):
    hub = pytest.importorskip('mmpretrain.apis.model').ModelHub
    monkeypatch.setattr(hub, '_models_dict', {})
    hub.register_model_index(ROOT / 'model-index.yml', config_prefix=ROOT)
    info = hub.get('nfnet_f5_sam_in1k')
    assert info.config.model.backbone.arch == 'F5'
    assert info.metadata.parameters == cost('NFNet', 'F5', 544).parameters
    assert info.results[0].metrics == {'Top 1 Accuracy': 86.3, 'Top 5 Accuracy': 97.9}
