"""mmengine's file functions on a pack, against the same on the folder."""

import multiprocessing
from pathlib import Path

import pytest
from mmengine import fileio

from nfnet_mm.errors import UserError
from nfnet_mm.pack import PackBackend, write_pack


@pytest.fixture
def roots(tmp_path, monkeypatch):
    """Of a folder, and of its pack."""
    for name in ('train/a/1.jpg', 'train/a/2.png', 'train/b/1.jpg', 'meta/train.txt'):
        path = tmp_path / 'data' / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f'{name}\n')
    write_pack(str(tmp_path / 'data'), str(tmp_path / 'data.tar'))
    monkeypatch.chdir(tmp_path)
    return str(tmp_path / 'data'), f'pack://{tmp_path}/data.tar'


@pytest.mark.parametrize('recursive', [False, True])
@pytest.mark.parametrize('kind', [{}, dict(list_dir=False), dict(list_file=False), dict(list_dir=False, suffix='.jpg')])
def test_listings(roots, kind, recursive):
    for place in ('', '/', '/train', '/train/', '/train/../train/a'):
        of_folder, of_pack = (
            sorted(fileio.list_dir_or_file(root + place, recursive=recursive, **kind)) for root in roots
        )
        assert of_pack == of_folder


def test_files(roots):
    folder, pack = roots
    for name in ('train/a/1.jpg', 'meta/train.txt', 'meta', 'train/b/', 'train/c', 'gone.txt'):
        for ask in (fileio.exists, fileio.isfile, fileio.isdir):
            assert ask(f'{pack}/{name}') == ask(f'{folder}/{name}')
    assert fileio.get(f'{pack}/train/b/1.jpg') == b'train/b/1.jpg\n'
    assert fileio.list_from_file(f'{pack}/meta/train.txt') == ['meta/train.txt']
    assert fileio.get('pack://data.tar/train/b/1.jpg') == b'train/b/1.jpg\n'  # from the current folder
    assert fileio.join_path(pack, 'train', 'a') == f'{pack}/train/a'
    with fileio.get_local_path(f'{pack}/meta/train.txt') as path:
        assert Path(path).read_text() == 'meta/train.txt\n' and path.endswith('train.txt')
    assert not Path(path).exists()


def test_a_folder_may_be_named_as_packs_are(tmp_path, roots):
    (tmp_path / 'old.tar').mkdir()
    (tmp_path / 'data.tar').rename(tmp_path / 'old.tar/new.tar')
    assert fileio.get(f'pack://{tmp_path}/old.tar/new.tar/train/a/2.png') == b'train/a/2.png\n'


def test_what_names_no_pack(tmp_path):
    with pytest.raises(UserError, match=r"pack '.*/gone.tar' does not exist; in "):
        fileio.get(f'pack://{tmp_path}/gone.tar/1.jpg')
    with pytest.raises(UserError, match=r"'pack://data/1.jpg' names no pack: pack://FILE.tar/PATH does"):
        fileio.get('pack://data/1.jpg')
    with pytest.raises(UserError, match='takes no arguments, got db_path'):
        PackBackend(db_path='x')


def read(path):
    return fileio.get(path)


def test_processes_that_are_not_forked_open_it_themselves(roots):
    with multiprocessing.get_context('spawn').Pool(1) as pool:
        assert pool.apply(read, [f'{roots[1]}/train/b/1.jpg']) == b'train/b/1.jpg\n'
