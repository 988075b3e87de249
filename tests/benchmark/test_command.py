"""``python -m nfnet_mm benchmark`` from end to end, and what it refuses."""

import json
import sys

import numpy as np
import pytest
import torch

from nfnet_mm import commands
from nfnet_mm.benchmark import find_implementation

TINY = ['--device', 'cpu', '--size', '32', '--batch-size', '2', '--layout', 'contiguous']


def test_two_implementations(tmp_path, capsys):
    pytest.importorskip('timm')
    pair = ['nfnet_nano', 'timm/test_nfnet']
    measures = ['--measure', 'train', 'eval', 'accumulate', 'saved', 'peak']
    commands.main('benchmark', [*pair, *TINY, '--pairs', '3', *measures, '--out', str(tmp_path / 'out')])
    said = capsys.readouterr().out
    assert not torch.backends.cudnn.benchmark  # as it was
    found = json.loads((tmp_path / 'out/benchmark.json').read_text())
    assert [row['measure'] for row in found['rows']] == measures[1:]
    for row in found['rows'][:4]:
        ours, theirs = (np.array(side['values']) for side in row['sides'])
        assert len(ours) == len(theirs) == (1 if row['measure'] == 'saved' else 3)
        assert row['ratio']['median'] == pytest.approx(np.median(ours / theirs))
        assert row['sides'][0]['summary']['median'] == pytest.approx(np.median(ours))
        assert f'{row["ratio"]["median"]:.3f}' in said
    assert [side['settings']['micro_batches'] for side in found['rows'][2]['sides']] == [4, 4]
    assert 'not measured: peak memory is that of CUDA' in said
    assert (tmp_path / 'out/ratios.png').read_bytes().startswith(b'\x89PNG')
    assert found['machine']['packages']['torch'] == torch.__version__.split('+')[0]


def test_growth(tmp_path, capsys):
    words = ['nfnet_nano', *TINY, '--pairs', '1', '--grow', 'batch', '--values', '1', '2', '4', '--out', str(tmp_path)]
    commands.main('benchmark', words)
    (one,) = json.loads((tmp_path / 'benchmark.json').read_text())['growth']
    points = [(p['x'], p['seconds']['median']) for p in one['points']]
    slope, intercept = np.polyfit(*zip(*points), 1)
    assert (one['line']['slope'], one['line']['intercept']) == pytest.approx((slope, intercept))
    assert 'line: ' in capsys.readouterr().out and (tmp_path / 'growth.png').is_file()


@pytest.mark.parametrize(
    'words, said',
    [
        ([], 'name one or two implementations'),
        (['nfnet_f0', '--suite', 'cpu'], 'name one or two implementations'),
        (['a', 'b', 'c'], '3 implementations were named'),
        (['--suite', 'h20'], "--suite 'h20' is unknown. Did you mean 'h200'? Known: cpu, h200, papers"),
        (['nfnet_f00'], "no network 'nfnet_f00'. Did you mean 'nfnet_f0'"),
        (['timm/dm_nfnet_f9'], "has no model 'dm_nfnet_f9'. Did you mean 'dm_nfnet_f"),
        (['torchvision/resnet51'], "no classifier 'resnet51'. Did you mean 'resnet50"),
        (["dict(type='nfnet_mm.NFNat')"], "no model 'NFNat' in nfnet_mm. Did you mean 'NFNet'"),
        (["dict(type='NoSuchBackbone')"], 'NoSuchBackbone was not built'),
        (['dict(depth=50)'], 'has no type'),
        (['dict(type=open)'], 'is no dict of plain values'),
        (["{'type'}"], 'is no dict of plain values'),
        (["dict(**{'type': 'nfnet_mm.NFNet'})"], 'is no dict of plain values'),
        (['nfnet_f0,drop'], "'drop' must be KEY=VALUE"),
        (['nfnet_f0,size=abc'], "size='abc' must be a positive integer"),
        (['nfnet_f0,agc=1'], 'agc=1 must be True or False'),
        (['nfnet_f0,layout=nhwc'], "layout='nhwc' must be best, contiguous, channels_last"),
        (['nfnet_nano,drop_paht_rate=0.1', '--size', '32'], 'NFNet takes no drop_paht_rate'),
        (['no_such.py'], 'no_such.py'),
        (['nfnet_nano', '--size', '31'], '--size 31 must be at least 32, the stride of the last stage'),
        (['nfnet_nano', '--pairs', '0'], '--pairs=0 must be a positive integer'),
        (['nfnet_nano', '--threads', '99999'], '--threads 99999 is more than this machine has cores'),
        (['nfnet_nano', '--measure', 'trian'], "--measure 'trian' is unknown. Did you mean 'train'?"),
        (['nfnet_nano', '--dtype', 'fp16'], "--dtype 'fp16' is unknown"),
        (['nfnet_nano', '--dtype', 'float16'], '--dtype float16 needs --device cuda'),
        (['--compile', 'nfnet_nano', 'nfnet_nano'], "--compile 'nfnet_nano' is no mode of torch.compile: default"),
        (['nfnet_nano,compiled=fast'], "--compile 'fast' is no mode of torch.compile: default"),
        (['--suite', 'cpu', '--seconds', '-1'], '--seconds=-1.0 must be a positive finite number'),
        (['nfnet_nano', '--device', 'gpu'], "--device 'gpu' is unknown"),
        (['nfnet_nano', '--grow', 'width'], "--grow 'width' is unknown"),
        (['nfnet_nano', '--grow', 'size', '--values', '64', '32'], '--values 64 32 must be at least three increasing'),
        (['nano,batch=9', '--grow', 'batch'], "'nano,batch=9' states the batch, which --grow batch takes from"),
        (['nf_resnet26,depth=50', '--grow', 'depth'], "'nf_resnet26,depth=50' states the depth"),
        (['nf_resnet26,in_channels=4', '--grow', 'depth'], 'images of shape (N, 4, H, W)'),
        (['nfnet_nano', '--values', '1', '2', '4'], '--values does not go with a benchmark without --grow'),
        (['nfnet_nano', '--grow', 'size', '--measure', 'eval'], '--measure does not go with --grow, which measures'),
        (['--suite', 'cpu', '--measure', 'eval'], '--measure does not go with --suite cpu, whose rows say what'),
        (['--suite', 'cpu', '--grow', 'size'], '--grow does not go with a --suite'),
        (['nfnet_f0', '--out', '/dev/null/found'], "--out '/dev/null/found' is no folder that can be written to"),
        (['nfnet_nano,out_indices=3', '--size', '32'], 'out_indices=3 must be a sequence of integers'),
        (['timm/test_nfnet', '--grow', 'depth'], '--grow depth takes networks of this package'),
        (['nfnet_nano', '--measure', 'peak'], 'nothing could be measured: peak memory is that of CUDA'),
    ],
)
def test_what_is_refused_is_one_line(words, said, capsys):
    pytest.importorskip('timm')
    device = [] if '--device' in words or '--suite' in words or not torch.cuda.is_available() else ['--device', 'cpu']
    with pytest.raises(SystemExit) as stop:
        commands.main('benchmark', [*words, *device])
    lines = capsys.readouterr().err.splitlines(keepends=True)
    error = ''.join(line for line in lines if not line.startswith('mmcv has no compiled operators'))  # said once
    assert stop.value.code == 2 and error.startswith('error: ') and error.count('\n') == 1 and said in error, error


@pytest.mark.skipif(torch.cuda.is_available(), reason='a GPU is there')
@pytest.mark.parametrize('words', [['nfnet_f0', '--device', 'cuda'], ['--suite', 'h200'], ['--suite', 'papers']])
def test_without_a_gpu_cuda_is_refused(words, capsys):
    with pytest.raises(SystemExit):
        commands.main('benchmark', words)
    assert capsys.readouterr().err.endswith('torch sees no CUDA device here; python -m nfnet_mm doctor tells more\n')


def test_without_timm(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, 'timm', None)
    with pytest.raises(SystemExit):
        commands.main('benchmark', ['nfnet_nano', 'timm/test_nfnet', '--device', 'cpu'])
    assert "'timm/test_nfnet' needs timm: pip install timm" in capsys.readouterr().err


@pytest.mark.parametrize(
    'name, kind, size, clipping',
    [
        ('nfnet_f0', 'NFNet', 192, 'ours'),
        ('nfnet_f1,size=64,drop_path_rate=0.25', 'NFNet', 64, 'ours'),
        ('nf_resnet50,agc=False', 'NFResNet', 224, None),
        ('bn_resnet50', 'BNResNet', 224, None),
        ("dict(type='nfnet_mm.NFNet', arch='timm/nfnet_l0')", 'NFNet', 224, 'ours'),
        ("{'type': 'nfnet_mm.BNResNet', 'depth': 50}", 'BNResNet', 224, None),
    ],
)
def test_an_implementation_is_what_its_name_says(name, kind, size, clipping):
    found = find_implementation(name)
    assert (found.size, found.clipping) == (size, clipping)
    with torch.device('meta'):
        network = found.build(7)
    assert type(network.backbone).__name__ == kind and network.fc.out_features == 7
    assert network.fc.in_features == network.backbone.out_channels[-1]
    if 'drop_path' in name:
        assert network.backbone.drop_path_rate == 0.25


def test_arguments_with_commas_and_dicts_within():
    for text in (
        "dict(type='nfnet_mm.NFResNet', arch=dict(widths=(16, 24, 32, 48), depths=[1, 1, 1, 1]), out_indices=(0, 2))",
        'nf_resnet50,arch={"widths": (16, 24, 32, 48), "depths": [1, 1, 1, 1]},out_indices=(0, 2),batch=1',
    ):
        found = find_implementation(text)
        assert found.build(7).fc.weight.shape == (7, 32), text
        assert found.settings == (dict(batch=1) if 'batch' in text else {})


def test_a_picture_that_cannot_be_written(tmp_path, capsys):
    (tmp_path / 'ratios.png').mkdir()
    with pytest.raises(SystemExit) as stop:
        pair = ['nfnet_nano', 'nfnet_nano']
        commands.main('benchmark', [*pair, *TINY, '--pairs', '1', '--measure', 'eval', '--out', str(tmp_path)])
    assert stop.value.code == 2 and 'ratios.png' in capsys.readouterr().err
    assert json.loads((tmp_path / 'benchmark.json').read_text())['rows'][0]['ratio']


def test_the_backbone_of_a_config_file(tmp_path):
    """Trained whole and from nothing, whatever the config freezes and loads."""
    init = "dict(type='Pretrained', checkpoint='no_such.pth')"
    own = f"dict(type='nfnet_mm.NFNet', arch='nano', frozen_stages=1, init_cfg={init}, out_indices=(0, 3))"
    (tmp_path / 'detector.py').write_text(f"default_scope = 'mmdet'\nmodel = dict(backbone={own})\n")
    found = find_implementation(f'{tmp_path}/detector.py,drop_path_rate=0.1')
    network = found.build(5)
    assert found.clipping == 'ours' and network.backbone.drop_path_rate == 0.1
    assert all(p.requires_grad for p in network.parameters())
    assert network(torch.zeros(2, 3, 32, 32)).shape == (2, 5)


@pytest.mark.parametrize(
    'name', ['torchvision/resnet18', "dict(type='mmpretrain.ResNet', depth=18)", "dict(type='mmdet.ResNet', depth=18)"]
)
def test_networks_of_others_take_their_images(name):
    if name.startswith('dict'):
        pytest.importorskip(name.split("'")[1].partition('.')[0])
    found = find_implementation(name)
    network = found.build(5)
    assert found.clipping is None and network(torch.zeros(2, 3, 64, 64)).shape == (2, 5)
    assert 11e6 < sum(p.numel() for p in network.parameters()) < 11.8e6  # torchvision's page: 11.7 M with 1000 classes


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
def test_on_a_gpu(tmp_path):
    """A captured step is one launch; times and peaks are there for both sides."""
    pytest.importorskip('timm')
    measures = ['train', 'eval', 'agc', 'agc-all', 'ws', 'accumulate', 'peak', 'graph', 'graph-launches', 'launches']
    words = [
        'nfnet_nano',
        'timm/test_nfnet',
        '--device',
        'cuda',
        '--size',
        '64',
        '--pairs',
        '3',
        '--out',
        str(tmp_path),
    ]
    commands.main('benchmark', [*words, '--measure', *measures])
    found = {row['measure']: row for row in json.loads((tmp_path / 'benchmark.json').read_text())['rows']}
    assert [name for name, row in found.items() if row['failure']] == []
    assert all(value > 0 for row in found.values() for side in row['sides'] for value in side['values'])
    assert [side['values'] for side in found['graph-launches']['sides']] == [[1], [1]]
    assert found['launches']['sides'][0]['values'][0] > 100
