"""The commands of ``python -m nfnet_mm``."""

import argparse
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from nfnet_mm import commands
from nfnet_mm.commands.command_line import was_interrupted

ROOT = Path(__file__).parents[1]
FILES = dict(
    train='train',
    test='test',
    swap_backbone='swap',
    convert_weights='convert',
    prepare_nyu='prepare-nyu',
    benchmark='benchmark',
)


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


@pytest.mark.parametrize('command', ['train', 'test'])
def test_options_of_other_tools_say_what_does_it_here(command, capsys):
    module = import_module(f'nfnet_mm.commands.{command}')
    parser = argparse.ArgumentParser()
    module.add_arguments(parser)
    known = {option for action in parser._actions for option in action.option_strings}
    files = [['config.py'], ['config.py', 'x.pth']][command == 'test']
    for option, instead in module.INSTEAD.items():
        assert set(re.findall(r'(--[a-z-]+)', instead)) <= known  # what it points to exists
        with pytest.raises(SystemExit) as stop:
            commands.main(command, [*files, option, 'bbox', '1'])
        line = f'error: {option} is no option here; what does it is: {instead}\n'
        assert (stop.value.code, capsys.readouterr().err) == (2, line)


# The options of the siblings' own train.py and test.py, mmdet 3.3, mmseg 1.2 and mmpretrain 1.2.
SIBLINGS = dict(
    train='--work-dir --amp --auto-scale-lr --resume --cfg-options --launcher --local_rank --local-rank --no-validate '
    '--no-pin-memory --no-persistent-workers',
    test='--work-dir --out --out-item --show --show-dir --wait-time --interval --cfg-options --launcher --tta --amp '
    '--no-pin-memory --local_rank --local-rank',
)


@pytest.mark.parametrize('command', SIBLINGS)
def test_every_option_of_the_siblings_exists(command):
    parser = argparse.ArgumentParser()
    import_module(f'nfnet_mm.commands.{command}').add_arguments(parser)
    assert set(SIBLINGS[command].split()) <= {name for action in parser._actions for name in action.option_strings}


def test_an_unknown_option_is_one_line_with_the_nearest(capsys):
    for given, message in [
        ('--no-valdate', "train takes no option '--no-valdate'. Did you mean '--no-validate'? Its options: --help, "),
        ('--workdir=x', "train takes no option '--workdir=x'. Did you mean '--work-dir'? Its options: "),
        ('x.pth', "train takes no further argument 'x.pth'. Its options: "),
    ]:
        with pytest.raises(SystemExit) as stop:
            commands.main('train', ['config.py', given])
        errors = capsys.readouterr().err
        assert stop.value.code == 2 and errors.startswith(f'error: {message}') and errors.count('\n') == 1
        assert '--gpu-ids' not in errors


def test_an_interrupt_that_other_code_turned_into_an_error_is_one():
    """As mmengine does while it formats a config for a checkpoint."""
    try:
        try:
            raise KeyboardInterrupt
        except:  # noqa: E722
            raise SyntaxError('Failed to format the config file')  # noqa: B904
    except SyntaxError as error:
        assert was_interrupted(error)
    assert not was_interrupted(SyntaxError())
