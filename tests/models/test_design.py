"""``python -m nfnet_mm.models.backbones``: the printed design of a network."""

import subprocess
import sys

import pytest

from nfnet_mm.models.backbones.__main__ import main
from nfnet_mm.models.backbones.arch import FAMILIES


@pytest.fixture
def printed(capsys):
    def run(*args):
        status = main(args)
        out, err = capsys.readouterr()
        return status, out, err

    return run


def rows(out):
    lines = out.splitlines()
    start = next(i for i, line in enumerate(lines) if line.split()[:2] == ['stage', 'block'])
    return [' '.join(line.split()) for line in lines[start + 1 : lines.index('', start)]]


def test_f0(printed):
    """Betas by hand: 1, 1/sqrt(1.04), ..., 1/sqrt(1.20); the total is the authors' count."""
    status, out, _ = printed('NFNet', 'F0', '--drop-path-rate', '0.24')
    assert status == 0 and out.startswith('NFNet F0\nactivation: gelu, its gain 1.7015')
    assert 'stem: 3x3 convs of 16, 32, 64, 128 channels, strides 2, 1, 1, 2; ' in out
    assert [row.rpartition(' ')[0] for row in rows(out)] == [
        '0 0 128 -> 256 128 1 1 4 1.0000 0.2 0.0000 1.0400',
        '1 0 256 -> 512 256 2 2 8 0.9806 0.2 0.0200 1.0400',
        '1 1 512 -> 512 256 2 1 8 0.9806 0.2 0.0400 1.0800',
        '2 0 512 -> 1536 768 6 2 16 0.9623 0.2 0.0600 1.0400',
        '2 1 .. 5 1536 -> 1536 768 6 1 16 0.9806 .. 0.9129 0.2 0.0800 .. 0.1600 1.0800 .. 1.2400',
        '3 0 1536 -> 1536 768 6 2 32 0.8980 0.2 0.1800 1.0400',
        '3 1 .. 2 1536 -> 1536 768 6 1 32 0.9806 .. 0.9623 0.2 0.2000 .. 0.2200 1.0800 .. 1.1200',
    ]
    assert 'final conv: 1x1, 1536 -> 3072 channels; 4,724,736 parameters' in out
    assert 'total: 12 blocks, 68,416,284 parameters; 71,489,284 with a classifier of 1000 classes' in out
    assert 'NF-ResNets, section 4' in out


def test_alpha(printed):
    """A larger alpha: after one block of 1 + 0.5^2, beta is 1 / sqrt(1.25)."""
    out = printed('NFResNet', '50', '--alpha', '0.5')[1]
    assert rows(out)[1].startswith('0 1 .. 2 256 -> 256 64 1 1 4 0.8944 .. 0.8165 0.5 0.0000 1.5000 .. 1.7500 ')
    assert 'strides 2, then 3x3 max pooling of stride 2' in out and 'final conv' not in out


def test_names(printed):
    status, out, _ = printed()
    assert status == 0 and [line.partition(':')[0] for line in out.splitlines()] == [*FAMILIES]
    assert printed('NFRegNet')[1] == out.splitlines()[2] + '\n'
    assert out.splitlines()[2].startswith('NFRegNet: B0, timm/nf_regnet_b0, B1, ')
    assert printed('nfnet_f0')[1] == printed('NFNet', 'F0')[1]


@pytest.mark.parametrize(
    'args, message',
    [
        (('NFNet', 'F9'), "error: NFNet arch 'F9' is unknown. Did you mean 'F"),
        (('NFNets', 'F0'), "error: family 'NFNets' is unknown. Did you mean 'NFNet'? Known: NFNet, NFResNet, NFRegNet"),
        (('nfnet_g0',), "error: backbone 'nfnet_g0' is unknown. Did you mean 'nfnet_"),
        (('NFNet', 'nfnet_f0'), "error: NFNet arch 'nfnet_f0' is the name of two networks: 'F0' for the paper's"),
        (('NFNet', 'F0', '--alpha', '0'), 'error: alpha=0.0 must be a positive finite number'),
        (('NFNet', 'F0', '--drop-path-rate', '1'), 'error: drop_path_rate=1.0 must lie in [0, 1)'),
    ],
)
def test_errors_are_one_line(printed, args, message):
    status, out, err = printed(*args)
    assert (status, out) == (2, '') and err.startswith(message) and err.count('\n') == 1


def test_as_a_module():
    run = subprocess.run(
        [sys.executable, '-m', 'nfnet_mm.models.backbones', 'NFRegNet', 'B99'], capture_output=True, text=True
    )
    assert run.returncode == 2 and run.stderr.startswith("error: NFRegNet arch 'B99' is unknown.")
