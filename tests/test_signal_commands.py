"""What the commands signal and check say and write of small networks, and with which status they end."""

import csv

import pytest
import torch
from mmengine.registry import MODELS
from torch import nn

from nfnet_mm import commands
from nfnet_mm.analysis.signal_propagation import signal_propagation
from nfnet_mm.models.backbones import NFNet
from nfnet_mm.signal_models import noise

BACKBONE = "model = dict(type='X', {data}backbone=dict(type={type!r}, arch='nano'))\n"


@MODELS.register_module(force=True)
class NFNetWithPlainConv(NFNet):
    """The mistake of whoever puts a conv of their own into a block."""

    def __init__(self, **options):
        super().__init__(**options)
        block = self.stages[1][0]
        old = block.conv1
        block.conv1 = nn.Conv2d(old.in_channels, old.out_channels, 3, old.stride, 1, groups=old.groups)


@MODELS.register_module(force=True)
class OneConv(nn.Conv2d):
    pass


@pytest.fixture
def config(tmp_path):
    def write(type='nfnet_mm.NFNet', data=''):
        path = tmp_path / 'config.py'
        path.write_text(BACKBONE.format(type=type, data=data))
        return str(path)

    return write


def check(capsys, *argv):
    """(exit status, what was printed, what was said of errors)"""
    with pytest.raises(SystemExit) as end:
        commands.main(argv=['check', *argv])
    said = capsys.readouterr()
    return end.value.code, said.out, said.err


def test_check_is_silent_without_a_mistake(config, capsys):
    status, said, _ = check(capsys, config())
    assert status == 0
    assert said.splitlines() == [
        'model.backbone: NFNet, 4 blocks, held against the plan of its blocks',
        'model.backbone: every block keeps to the plan',
    ]


def test_check_names_the_block_with_the_mistake(config, capsys):
    status, said, _ = check(capsys, config('NFNetWithPlainConv'))
    assert status == 1
    _, finding, count = said.splitlines()
    assert finding.startswith('  stages.1.0: the variance of its branch is ')
    assert 'conv1 (Conv2d) has no scaled weight standardisation' in finding
    assert count == 'model.backbone: 1 place where the signal leaves its scale'


def test_check_finds_images_that_are_not_normalised(config, capsys):
    data = "data_preprocessor=dict(type='ClsDataPreprocessor', mean=[0., 0., 0.], std=[1., 1., 1.]), "
    status, said, _ = check(capsys, config(data=data))
    assert status == 1 and '  images: the data preprocessor divides by std=[1.0, 1.0, 1.0]' in said


def test_check_of_bad_arguments(config, tmp_path, capsys):
    assert check(capsys, config(), '--size', '0')[::2] == (2, 'error: --size=0 must be a positive integer\n')
    status, _, error = check(capsys, config('nfnet_mm.NFNte'))
    assert status == 2 and 'NFNte' in error and error.count('\n') == 1
    (tmp_path / 'none.py').write_text('a = 1\n')
    status, _, error = check(capsys, str(tmp_path / 'none.py'))
    assert status == 2 and "none.py' has no model.backbone to check" in error


def test_check_of_a_network_without_blocks(tmp_path, capsys):
    path = tmp_path / 'conv.py'
    path.write_text("model = dict(backbone=dict(type='OneConv', in_channels=3, out_channels=3, kernel_size=1))\n")
    status, said, _ = check(capsys, str(path))
    assert status == 0 and 'has no blocks' in said and said.endswith('so that there is nothing to check\n')


@pytest.mark.parametrize('norm_eval', [True, False])
def test_check_of_another_packages_network(tmp_path, capsys, norm_eval):
    """Without a checkpoint's averages, BatchNorm in eval mode would let the variance of this one explode."""
    pytest.importorskip('mmdet')
    path = tmp_path / 'resnet.py'
    backbone = f"dict(type='mmdet.ResNet', depth=50, base_channels=8, zero_init_residual=False, norm_eval={norm_eval})"
    path.write_text(f'model = dict(backbone={backbone})\n')
    status, said, _ = check(capsys, str(path), '--size', '64')
    assert status == 0 and 'ResNet, 16 blocks' in said and '53 BatchNorms' in said
    assert ('averages of a checkpoint' in said) == norm_eval


def test_signal_writes_the_numbers_and_the_picture(tmp_path, config, capsys):
    torch.manual_seed(4)
    net = NFNet('nano')
    net.init_weights()
    expected = signal_propagation(net, noise(2, 32, 4))
    arguments = [
        config(),
        "dict(type='nfnet_mm.NFResNet', depth=26)",
        '--size',
        '32',
        '--batch-size',
        '2',
        '--seed',
        '4',
    ]
    commands.main(argv=['signal', *arguments, '--as-built', '--device', 'cpu', '--out', str(tmp_path / 'out')])
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith('config: 4 blocks, variance ') and 'measured / predicted' in said[0]
    with (tmp_path / 'out' / 'signal.csv').open() as file:
        rows = list(csv.DictReader(file))
    ours = [row for row in rows if row['model'] == 'config']
    assert [row['block'] for row in ours] == [row.block for row in expected] and len(rows) == 4 + 8
    for row, one in zip(ours, expected):
        for name in ('avg_sq_mean', 'avg_var', 'res_avg_var', 'predicted_var', 'planned_var'):
            assert float(row[name]) == pytest.approx(getattr(one, name), rel=1e-5)
    assert (tmp_path / 'out' / 'signal.png').read_bytes().startswith(b'\x89PNG')


@pytest.mark.parametrize(
    'arguments, message',
    [
        ([], 'name one or more models'),
        (['--figure', '3'], "--figure '3' is none"),
        (['nf_resnet5'], 'nf_resnet5'),
        (["dict(type='nfnet_mm.NFNet', arch=open('x'))"], 'is no dict of a backbone'),
        (['nfnet_nano', '--batch-size', '0'], '--batch-size=0 must be a positive integer'),
        (['nfnet_nano', '--device', 'gpu'], "device 'gpu' cannot be used here, where there is cpu"),
        (['nfnet_nano', '--device', 'meta'], "device 'meta' cannot be used here, where there is cpu"),
    ],
)
def test_signal_of_bad_arguments_is_one_line(tmp_path, arguments, message, capsys):
    with pytest.raises(SystemExit) as end:
        commands.main(argv=['signal', *arguments, '--out', str(tmp_path / 'out')])
    error = capsys.readouterr().err
    assert end.value.code == 2 and message in error and error.count('\n') == 1
    assert not list(tmp_path.rglob('*.png'))
