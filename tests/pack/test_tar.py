"""Packs: against the folder, against other readers of tar files, and cut, damaged and interrupted."""

import os
import signal
import subprocess
import sys
import tarfile
import zlib
from types import SimpleNamespace

import numpy as np
import pytest

from nfnet_mm.errors import UserError
from nfnet_mm.pack import Pack, check_pack, write_pack

FILES = {
    'train/a/1.jpg': 3000,
    'train/a/ü 2.JPEG': 512,
    'train/b/0': 0,
    'train-0.txt': 1,  # between the folder's name and what is in it, by the order of characters
    'train0': 1,
    'train/' + 'long/' * 60 + 'x' * 90: 513,
    'val/' + 'ñ' * 100: 5,
}


@pytest.fixture
def folder(tmp_path):
    random = np.random.default_rng(0)
    for name, size in FILES.items():
        path = tmp_path / 'data' / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(random.bytes(size))
    (tmp_path / 'data/.hidden').write_text('no')
    (tmp_path / 'elsewhere').mkdir()
    (tmp_path / 'elsewhere/3.jpg').write_text('linked')
    (tmp_path / 'data/train/c').symlink_to(tmp_path / 'elsewhere')
    return tmp_path / 'data'


@pytest.fixture
def packed(folder):
    assert write_pack(str(folder), str(folder.parent / 'data.tar')) == len(FILES) + 1
    return folder.parent / 'data.tar'


def test_tar_programs_read_the_same(folder, packed):
    with tarfile.open(packed) as tar:
        content = {member.name: tar.extractfile(member).read() for member in tar}
    assert content.pop('.nfnet_mm_index')
    assert content == {name: (folder / name).read_bytes() for name in (*FILES, 'train/c/3.jpg')}
    pack = Pack(str(packed))
    assert {name: pack.read(name) for name in content} == content


def test_a_folder_is_listed_as_it_is_on_the_disk(folder, packed):
    pack = Pack(str(packed))
    for place in ('', 'train', 'train/a', 'train/c', 'train/long'):
        there = {entry.name: entry.is_dir() for entry in os.scandir(folder / place) if entry.name[0] != '.'}
        assert list(pack.entries(place)) == [(n, there[n]) for n, _ in pack.entries(place)]
        assert {name for name, _ in pack.entries(place)} == there.keys() and len(there) == len([*pack.entries(place)])
    assert pack.is_folder('train') and not pack.is_folder('trai') and not pack.is_folder('train/a/1.jpg')
    assert pack.is_file('train0') and not pack.is_file('train') and not pack.is_file('')


def test_the_same_folder_gives_the_same_bytes(folder, packed):
    os.utime(folder / 'train0', (0, 0))
    write_pack(str(folder), str(folder.parent / 'again.tar'))
    assert (folder.parent / 'again.tar').read_bytes() == packed.read_bytes()


def test_a_cut_at_any_place_is_told_as_it_is_opened(packed):
    whole, cut = packed.read_bytes(), packed.with_name('cut.tar')
    for at in [0, 1, *range(511, len(whole), 997), len(whole) - 1]:
        cut.write_bytes(whole[:at])
        with pytest.raises(UserError, match=r"^pack '.*cut.tar' is (no pack, or )?cut off.*make it anew"):
            Pack(str(cut))


def test_every_flipped_byte_of_a_file_is_told_and_no_other_suffers(packed):
    whole = bytearray(packed.read_bytes())
    want = Pack(str(packed)).read('train/a/1.jpg')
    at = bytes(whole).index(want)
    for place in (at, at + 1499, at + 2999):
        whole[place] ^= 1
        packed.write_bytes(whole)
        pack = Pack(str(packed))
        with pytest.raises(OSError, match=r"damaged at 'train/a/1.jpg': its bytes are not those"):
            pack.read('train/a/1.jpg')
        with pytest.raises(UserError, match=r'1 of 8 files are not as packed: train/a/1.jpg'):
            check_pack(str(packed))
        assert pack.read('train/c/3.jpg') == b'linked'
        whole[place] ^= 1


def test_a_flipped_bit_of_the_index_is_told_as_it_is_opened_or_does_not_matter(packed):
    whole, random = packed.read_bytes(), np.random.default_rng(0)
    want = Pack(str(packed))
    with tarfile.open(packed) as tar:
        first = tar.next()
    told = 0
    for _ in range(300):
        flipped = bytearray(whole)
        flipped[random.integers(first.offset_data + first.size)] ^= 1 << random.integers(8)
        packed.write_bytes(flipped)
        try:
            pack = Pack(str(packed))
        except UserError:
            told += 1
        else:  # in the tar's header of the index, or the .npy headers' spaces
            assert [(pack[i], pack.read(pack[i].decode())) for i in range(len(pack))] == [
                (want[i], want.read(want[i].decode())) for i in range(len(want))
            ]
    assert told > 150


def test_names_that_are_not_there(packed):
    pack = Pack(str(packed))
    with pytest.raises(FileNotFoundError, match=r"data.tar' has no file 'train/a/1.jpeg' Did you mean '1.jpg'\?"):
        pack.read('train/a/1.jpeg')
    with pytest.raises(FileNotFoundError, match=r"no file 'images/1.jpg', and holds train, train-0.txt, train0, val$"):
        pack.read('images/1.jpg')


def test_processes_that_are_forked_read_by_turns_from_one_open_file(packed):
    pack = Pack(str(packed))
    sums = {name: zlib.crc32(pack.read(name)) for name in FILES}
    children = []
    for _ in range(3):
        if not (child := os.fork()):
            same = all(zlib.crc32(pack.read(name)) == sums[name] for name in list(FILES) * 200)
            os._exit(0 if same else 1)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]


def test_what_is_no_pack(folder):
    other = folder.parent / 'other.tar'
    with tarfile.open(other, 'w') as tar:
        tar.add(folder)
    with pytest.raises(UserError, match='is a tar file without an index, which a pack has'):
        Pack(str(other))
    other.write_text('<html>')
    with pytest.raises(UserError, match='is no pack, or cut off'):
        Pack(str(other))
    with pytest.raises(UserError, match=r"pack '.*/data' is a folder, not a file"):
        Pack(str(folder))


def test_what_cannot_be_packed(folder, packed, monkeypatch):
    for source, target, message in [
        ('gone', 'x.tar', "'.*/gone' is no folder"),
        ('data', 'x.zip', r"'.*/x.zip' must end in .tar"),
        ('data', 'data.tar', r"'.*/data.tar' exists: delete it first"),
        ('data', 'gone/x.tar', "there is no folder '.*/gone'"),
        ('data', 'data/x.tar', 'would be in the folder that is packed'),
        ('data', 'data/val/x.tar', 'would be in the folder that is packed'),
    ]:
        with pytest.raises(UserError, match=message):
            write_pack(str(folder.parent / source), str(folder.parent / target))
    (folder / 'round').symlink_to(folder)
    with pytest.raises(UserError, match="/round' is a link to a folder that it is in"):
        write_pack(str(folder), str(folder.parent / 'x.tar'))
    (folder / 'round').unlink()
    (folder / 'nothing').symlink_to(folder / 'gone')
    with pytest.raises(UserError, match="/nothing' cannot be read: No such file"):
        write_pack(str(folder), str(folder.parent / 'x.tar'))
    (folder / 'nothing').unlink()
    (folder / 'train' / 'over').symlink_to(folder / 'val')
    (folder / 'val' / 'back').symlink_to(folder / 'train')
    with pytest.raises(UserError, match="/(train/over/back|val/back/over)' is a link to a folder that it is in"):
        write_pack(str(folder), str(folder.parent / 'x.tar'))
    (folder / 'train' / 'over').unlink()
    (folder / 'val' / 'back').unlink()
    os.mkfifo(folder / 'pipe')
    with pytest.raises(UserError, match="/pipe' is no file that has a content"):
        write_pack(str(folder), str(folder.parent / 'x.tar'))
    (folder / 'pipe').unlink()

    def grow(line):
        (folder / 'train0').write_text('longer')

    with pytest.raises(UserError, match="/train0' was changed while it was packed"):
        write_pack(str(folder), str(folder.parent / 'x.tar'), grow)
    monkeypatch.setattr('shutil.disk_usage', lambda _: SimpleNamespace(free=4000))
    with pytest.raises(UserError, match=r"x.tar' takes 0.0 GB, and '.*' has 0.0 GB left"):
        write_pack(str(folder), str(folder.parent / 'x.tar'))
    assert sorted(os.listdir(folder.parent)) == ['data', 'data.tar', 'elsewhere']


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGKILL])
def test_a_run_that_is_ended_leaves_no_pack(folder, number):
    code = """
import sys, time
from nfnet_mm.pack import write_pack
def say(line):
    print(line, flush=True)
    time.sleep(0.5)
write_pack(sys.argv[1], sys.argv[2], say)
"""
    target = folder.parent / 'x.tar'
    child = subprocess.Popen(
        [sys.executable, '-c', code, folder, target], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    child.stdout.readline()
    child.send_signal(number)
    child.communicate(timeout=30)
    left = [name for name in os.listdir(folder.parent) if name.startswith('.x.tar.')]
    assert not target.exists() and len(left) == (number == signal.SIGKILL)
    assert write_pack(str(folder), str(target)) == 8
