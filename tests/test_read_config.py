"""A config that does not load is one line, whichever command reads it."""

import pytest

from nfnet_mm.errors import UserError
from nfnet_mm.read_config import read_config
from nfnet_mm.run import load_config
from nfnet_mm.swap import config_files


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    for name, text in {
        'base.py': 'a = dict(b=[1, 2])\nc = 1\n',
        'unclosed.py': 'c = 1\nd = dict(e=2\nf = 3\n',
        'broken_module.py': 'x = 1\ny = x + z\n',
    }.items():
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.mark.parametrize(
    'text,reason',
    [
        ('a = 1\nb = dict(c=2\n', "SyntaxError: '(' was never closed (line 2)"),
        ("_base_ = './unclosed.py'\n", "SyntaxError: '(' was never closed (line 2 of '{folder}/unclosed.py')"),
        ("_base_ = './bas.py'\n", "there is no file '{folder}/bas.py' (in '{folder}' there is 'base.py')"),
        ('a = 1\nb = undefined\n', "NameError: name 'undefined' is not defined (line 2)"),
        ("_base_ = './base.py'\nd = _base_.e\n", "AttributeError: 'ConfigDict' object has no attribute 'e' (line 2)"),
        ("_base_ = ['./base.py', './base.py']\n", 'Duplicate keys: '),
        ("_base_ = './base.py'\na = dict(b=dict(d=1))\n", 'You may set `_delete_=True` to ignore the base config.'),
        ("custom_imports = dict(imports=['none.such'])\n", '(Failed to import none.such)'),
        (
            "custom_imports = dict(imports=['broken_module'])\n",
            "NameError: name 'z' is not defined (line 2 of '{folder}/broken_module.py')",
        ),
        ("_base_ = './wrong.py'\n", 'RecursionError: maximum recursion depth exceeded'),
        ('a = 1 / 0\n', 'ZeroDivisionError: division by zero (line 1)'),
    ],
)
@pytest.mark.parametrize('read', [read_config, lambda path: load_config(str(path)), config_files.read_config])
def test_what_is_wrong_and_where(folder, text, reason, read):
    file = folder / 'wrong.py'
    file.write_text(text)
    with pytest.raises(UserError) as error:
        read(file)
    line = str(error.value)
    assert '\n' not in line and line.startswith(f'config {str(file)!r} does not load: ')
    assert reason.format(folder=folder) in line, line


def test_a_checkpoint_in_place_of_the_config(folder):
    (folder / 'model.pth').write_bytes(b'')
    with pytest.raises(UserError, match=r"model.pth' is a file of weights: the config comes first, then the check"):
        load_config(str(folder / 'model.pth'))


def test_other_formats(folder):
    for name, text, reason in [
        ('a.yml', 'a: [1\n', "expected ',' or ']'"),
        ('a.json', '{"a": }', 'Expecting value: line 1 column 7'),
        ('a.txt', 'a = 1', 'Only py/yml/yaml/json type are supported'),
    ]:
        (folder / name).write_text(text)
        with pytest.raises(UserError) as error:
            read_config(folder / name)
        assert reason in str(error.value) and '\n' not in str(error.value) and 'site-packages' not in str(error.value)
    (folder / 'good.yml').write_text('a: [1, 2]\n')
    assert read_config(folder / 'good.yml').a == [1, 2]


@pytest.mark.parametrize('command', ['train', 'test', 'swap_backbone'])
def test_every_command_says_it_in_one_line(run_tool, folder, command):
    more = dict(train=[], test=['x.pth'], swap_backbone=['--backbone', 'nfnet_f0'])[command]
    code, errors = run_tool(command, folder / 'unclosed.py', *more)
    assert (code, errors) == (
        2,
        f"error: config '{folder}/unclosed.py' does not load: SyntaxError: '(' was never closed (line 2)\n",
    )
