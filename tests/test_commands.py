"""The commands of ``python -m nfnet_mm``."""

import subprocess
import sys
from pathlib import Path

import pytest

from nfnet_mm import commands

ROOT = Path(__file__).parents[1]
FILES = dict(train='train', test='test', swap_backbone='swap', convert_weights='convert', prepare_nyu='prepare-nyu')


def test_overview_names_every_command(capsys):
    commands.main(argv=[])
    said = capsys.readouterr().out
    assert all(f'  {name} ' in said for name in commands.COMMANDS)


def test_unknown_command_is_one_line(capsys):
    with pytest.raises(SystemExit) as stop:
        commands.main(argv=['trian', 'x.py'])
    assert stop.value.code == 2
    assert capsys.readouterr().err == (
        f"error: no command 'trian'. Did you mean 'train'? Known: {', '.join(commands.COMMANDS)}\n"
    )


@pytest.mark.parametrize('name', commands.COMMANDS)
def test_help_of_every_command_names_it(name, capsys):
    with pytest.raises(SystemExit) as stop:
        commands.main(argv=[name, '--help'])
    assert stop.value.code == 0
    assert capsys.readouterr().out.startswith(f'usage: python -m nfnet_mm {name} ')


@pytest.mark.parametrize('file', FILES)
def test_a_tool_is_the_command(file):
    """As a file of a clone that is not installed, from another folder."""
    run = subprocess.run([sys.executable, ROOT / f'tools/{file}.py', '--help'], capture_output=True, text=True, cwd='/')
    assert run.returncode == 0 and run.stdout.startswith(f'usage: {file}.py ')
    module = __import__(f'nfnet_mm.commands.{FILES[file].replace("-", "_")}', fromlist=['x'])
    assert ' '.join(module.__doc__.split('\n')[0].split()) in ' '.join(run.stdout.split())
