"""Weights by name: every row of the table, and names, folders and files of each kind from end to end."""

import argparse
import base64
import dataclasses
import hashlib
import io
import json
import pickle
import re
from pathlib import Path

import pytest
import torch
from mmengine.registry import MODELS

from nfnet_mm.commands.convert import add_arguments, run
from nfnet_mm.converters import PUBLIC_WEIGHTS, ReadError, from_deepmind, hub, load_weights, local_file
from nfnet_mm.converters.hub import table
from nfnet_mm.models.backbones.arch import find_network
from tests.converters.networks import deepmind_tree
from tests.converters.test_orbax import OLD, known_tree, needs_orbax, unpacked
from tests.converters.web import file, redirect, status

pytestmark = pytest.mark.usefixtures('cache')


def test_rows_of_timm():
    """Names, tags, places on the hub and licences are those of the installed timm."""
    timm = pytest.importorskip('timm.models.nfnet')
    theirs = {}
    for model, entry in timm.default_cfgs.items():
        for tag, cfg in entry.cfgs.items():
            if cfg.has_weights:
                name = f'{model}.{tag}'
                place = name if cfg.hf_hub_id == 'timm/' else cfg.hf_hub_id.removeprefix('timm/')  # a folder of theirs
                theirs[f'timm/{name}'] = (f'https://huggingface.co/timm/{place}/resolve/main/', cfg.license.lower())
    rows = [row for row in PUBLIC_WEIGHTS.values() if row.owner == 'timm']
    assert {row.name: (row.url.removesuffix('model.safetensors'), row.licence.lower()) for row in rows} == theirs
    assert len(rows) == 14 and {row.kind for row in rows} == {'safetensors'}
    for row in rows:
        model = row.name.removeprefix('timm/').partition('.')[0]
        assert find_network(row.network).key in (f'timm/{model}', model.removeprefix('nfnet_').upper(), ECA.get(model))
        assert find_network(row.network).arch.dialect == 'timm'


ECA = {f'eca_nfnet_l{n}': f'ECA-L{n}' for n in range(3)}


def test_rows_of_deepmind():
    """The table of deepmind-research's nfnets/README.md; jax_privacy's names of models and bucket."""
    rows = [row for row in PUBLIC_WEIGHTS.values() if row.owner == 'DeepMind']
    assert [(row.url, row.kind, row.network) for row in rows[:7]] == [
        (f'https://storage.googleapis.com/dm-nfnets/F{n}_haiku.npz', 'pickle', f'nfnet_f{n}') for n in range(7)
    ]
    assert all(re.fullmatch(r'md5:[0-9a-f]{32}', row.checksum) for row in rows[:7])
    bucket = 'https://storage.googleapis.com/dm_jax_privacy/models'
    assert [(row.name, row.url, row.kind, row.network, row.licence) for row in rows[7:]] == [
        (f'deepmind/{name}', f'{bucket}/{name}/', 'orbax', name.removesuffix('_im21k'), 'CC-BY-4.0')
        for name in ('nfnet_f0_im21k', 'nfnet_f1_im21k', 'nfnet_f3_im21k')
    ]
    assert len({row.file for row in PUBLIC_WEIGHTS.values()}) == len(PUBLIC_WEIGHTS) == 24


NAMES = {
    'deepmind/f0': "Did you mean 'deepmind/F0'?",
    'DeepMind/F0': "Did you mean 'deepmind/F0'?",
    'deepmind/F7': "Did you mean 'deepmind/F",
    'deepmind/nfnet_f1': "Did you mean 'deepmind/F1' or 'deepmind/nfnet_f1_im21k'",
    'timm/DM_NFNET_F0': "Did you mean 'timm/dm_nfnet_f0.dm_in1k'?",
    'timm/dm_nfnet_f0.in1k': "Did you mean 'timm/dm_nfnet_f0.dm_in1k'",
    'timm/nf_resnet51.ra2_in1k': "Did you mean 'timm/nf_resnet50.ra2_in1k'",
    'timm/vit_base_patch16_224.augreg_in21k': 'They are deepmind/F0, .* timm/test_nfnet.r160_in1k$',
}


@pytest.mark.parametrize('name', NAMES)
def test_names_of_no_weights(name):
    with pytest.raises(ReadError, match=f'^{name!r} names no public weights. {NAMES[name]}') as caught:
        load_weights(name)
    assert '\n' not in str(caught.value)


def test_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path('deepmind').mkdir()
    Path('deepmind/F0').write_bytes(b'')
    assert local_file('deepmind/F0') == 'deepmind/F0'  # what is there comes first
    assert local_file(tmp_path / 'deepmind/F0') == str(tmp_path / 'deepmind/F0')
    Path('nf_resnet50.pth').write_bytes(b'')
    for missing, words in {
        'nf_resnet5.pth': "weights 'nf_resnet5.pth' does not exist; in '.': did you mean 'nf_resnet50.pth'?",
        'timm/nf_resnet50.pth': "weights 'timm/nf_resnet50.pth' does not exist; in '.': nothing there has a like name",
        'mine.npz': 'nothing there has a like name. Weights are a file, an address or a name such as deepmind/F0',
        'F0': "nothing there has a like name. Did you mean 'deepmind/F0'?",
        'nfnet_f3': "nothing there has a like name. Did you mean 'deepmind/F3' or 'deepmind/nfnet_f3_im21k'?",
        'dm_nfnet_f0': "nothing there has a like name. Did you mean 'timm/dm_nfnet_f0.dm_in1k'?",
    }.items():
        with pytest.raises(ReadError, match=re.escape(words)):
            local_file(missing)


def test_addresses_that_are_written_alike_are_two_files(web, cache):
    """What a name of a file cannot have is replaced, and must not make it that of another."""
    for number, path in enumerate(('/a b.pth', '/a_b.pth', '/d/a_b.pth', '/d_a_b.pth')):
        web.serve(path.replace(' ', '%20'), file(pth(number)))
    paths = ('/a%20b.pth', '/a_b.pth', '/d/a_b.pth', '/d_a_b.pth')
    found = [torch.load(local_file(web.url + path))['w'].item() for path in (*paths, *paths)]
    assert found == [0, 1, 2, 3] * 2 and len(web.requests) == 4


def test_a_password_in_an_address_is_refused_and_not_repeated(cache):
    with pytest.raises(ReadError) as caught:
        local_file('https://me:secret@example.org/a.pth')
    assert 'secret' not in str(caught.value) and 'download it by hand' in str(caught.value)


def pth(number):
    """A file that torch writes."""
    made = io.BytesIO()
    torch.save(dict(w=torch.tensor(number)), made)
    return made.getvalue()


@pytest.mark.parametrize('source', [5, None, ['deepmind/F0'], b'deepmind/F0'])
def test_what_is_no_path_at_all(source):
    with pytest.raises(ReadError, match=re.escape(f'weights={source!r} must be a file, an address or a name')):
        local_file(source)


def test_hugging_faces_files_by_name_into_a_backbone(web, cache, monkeypatch, log_lines):
    """timm's test_nfnet, written by the library of safetensors, from a mirror, redirected as Hugging Face does."""
    library = pytest.importorskip('safetensors.torch')
    timm = pytest.importorskip('timm')
    torch.manual_seed(0)
    model = timm.create_model('test_nfnet').eval()
    content = library.save(model.state_dict())
    digest = hashlib.sha256(content).hexdigest()
    web.serve(
        '/timm/test_nfnet.r160_in1k/resolve/main/model.safetensors', redirect('/lfs', X_Linked_ETag=f'"{digest}"')
    )
    web.serve('/lfs', file(content))
    monkeypatch.setenv('HF_ENDPOINT', web.url + '/')
    for name in ('timm/test_nfnet', 'timm/test_nfnet.r160_in1k'):
        cfg = dict(type='nfnet_mm.NFNet', arch='timm/test_nfnet', out_indices=(4,))
        net = MODELS.build(dict(cfg, init_cfg=dict(type='nfnet_mm.NFPretrained', checkpoint=name)))
        net.init_weights()
        image = torch.randn(1, 3, 64, 64)
        with torch.no_grad():
            torch.testing.assert_close(net.eval()(image)[0], model.forward_features(image), rtol=1e-4, atol=1e-5)
        assert f"of timm (dialect timm) from '{name}'" in log_lines()
    assert len(web.requests) == 2 and 'no checksum' not in log_lines()
    there = {path.name for path in (cache / 'timm').iterdir() if not path.name.endswith('.lock')}
    assert there == {'test_nfnet.r160_in1k.safetensors', 'test_nfnet.r160_in1k.safetensors.json'}
    monkeypatch.setenv('HF_ENDPOINT', 'hf-mirror.com')
    with pytest.raises(ReadError, match="HF_ENDPOINT='hf-mirror.com' has to begin with https://"):
        local_file('timm/nf_resnet50')


@pytest.mark.parametrize('kind', ['pth', 'old pth', 'safetensors', 'pickle'])
def test_addresses_of_every_format(kind, web):
    tree = deepmind_tree()
    expected = from_deepmind(tree)
    out = io.BytesIO()
    if kind == 'pickle':
        pickle.dump(tree, out)
    elif kind == 'safetensors':
        out.write(pytest.importorskip('safetensors.torch').save({k: v.contiguous() for k, v in expected.items()}))
    else:
        torch.save({'state_dict': expected}, out, _use_new_zipfile_serialization=kind == 'pth')
    weights = load_weights(web.serve('/weights', file(out.getvalue())))
    assert weights.state_dict.keys() == expected.keys()
    assert all(torch.equal(weights.state_dict[key], value) for key, value in expected.items())


def row_at(web, monkeypatch, name, **changes):
    """Let a row of the table be served from this machine."""
    row = PUBLIC_WEIGHTS[name]
    there = row.url.replace('https://storage.googleapis.com', web.url)
    monkeypatch.setitem(table.PUBLIC_WEIGHTS, name, dataclasses.replace(row, url=there, **changes))
    return there.removeprefix(web.url)


def test_deepminds_files_by_name(web, monkeypatch, tmp_path, capsys):
    content = pickle.dumps(deepmind_tree())
    path = row_at(web, monkeypatch, 'deepmind/F0')
    web.serve(path, file(content))
    with pytest.raises(ReadError, match='its md5 is .*, and not 0a41039da1cb43adf47f1b7d86ddfe0f$'):
        local_file('deepmind/F0')
    row_at(web, monkeypatch, 'deepmind/F0', checksum=f'md5:{hashlib.md5(content).hexdigest()}')
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    run(parser.parse_args(['deepmind/F0', str(tmp_path / 'a.pth')]))
    assert 'dialect authors; from deepmind to ours' in capsys.readouterr().out
    saved = torch.load(tmp_path / 'a.pth', weights_only=True)['state_dict']
    assert all(torch.equal(saved[key], value) for key, value in from_deepmind(deepmind_tree()).items())


LIST = '/storage/v1/b/dm_jax_privacy/o'
FIELDS = 'fields=items%28name%2Csize%2Cmd5Hash%29%2CnextPageToken'
PREFIX = 'models/nfnet_f0_im21k/'


def bucket(web, folder):
    """Serve a folder as a bucket of Google's, its list in two pages."""
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob('*') if path.is_file()}
    items = [{'name': PREFIX, 'size': '0', 'md5Hash': '1B2M2Y8AsgTpgAmY7PhCfg=='}]
    for name, content in files.items():
        digest = base64.b64encode(hashlib.md5(content).digest()).decode()
        items.append({'name': PREFIX + name, 'size': str(len(content)), 'md5Hash': digest})
        web.serve(f'/dm_jax_privacy/{PREFIX}{name}', file(content))
    prefix = 'prefix=models%2Fnfnet_f0_im21k%2F'
    first = f'{LIST}?{prefix}&{FIELDS}'
    web.serve(first, file(json.dumps({'items': items[:5], 'nextPageToken': 'n/2'}).encode()))
    web.serve(f'{first}&pageToken=n%2F2', file(json.dumps({'items': items[5:]}).encode()))
    return files, first


@needs_orbax
@pytest.mark.parametrize('name', OLD)
def test_orbax_checkpoints_by_name(name, web, tmp_path, monkeypatch, log_lines):
    bucket(web, unpacked(name, tmp_path))
    row_at(web, monkeypatch, 'deepmind/nfnet_f0_im21k')
    weights = load_weights('deepmind/nfnet_f0_im21k')
    expected = from_deepmind(known_tree())
    assert all(torch.equal(weights.state_dict[key], value) for key, value in expected.items())
    assert 'no checksum of deepmind/nfnet_f0_im21k is known: its sha256, ' in log_lines()


def test_folders_are_resumed_and_checked(web, cache, tmp_path, monkeypatch):
    monkeypatch.setattr(hub, 'check_installed', lambda: None)
    source = unpacked('orbax0.2.7-numpy', tmp_path)
    files, _ = bucket(web, source)
    row_at(web, monkeypatch, 'deepmind/nfnet_f0_im21k')
    last = f'/dm_jax_privacy/{PREFIX}{max(files)}'
    for answer, words in (
        (status(404), 'the server answers 404'),
        (file(files[max(files)][:-1]), r'\d+ bytes came, not \d+'),
        (file(bytes(len(files[max(files)]))), 'has another checksum than the list of the bucket states'),
    ):
        web.serve(last, answer)
        with pytest.raises(ReadError, match=words) as caught:
            local_file('deepmind/nfnet_f0_im21k')
        assert '\n' not in str(caught.value) and not (cache / 'deepmind/nfnet_f0_im21k').exists()
    web.serve(last, file(files[max(files)]))
    before = len(web.requests)
    path = Path(local_file('deepmind/nfnet_f0_im21k'))
    assert len(web.requests) - before == 2 + 1  # the list and the file that was missing
    assert {p.relative_to(path).as_posix(): p.read_bytes() for p in path.rglob('*') if p.is_file()} == files
    (path / 'checkpoint').write_bytes(b'changed')
    with pytest.raises(ReadError, match='is not deepmind/nfnet_f0_im21k: its sha256 is '):
        local_file('deepmind/nfnet_f0_im21k')


BAD_LISTS = {
    b'{}': "the bucket lists 0 files in 'models/nfnet_f0_im21k/'",
    b'not JSON': 'the list of the files in the bucket is malformed',
    b'[1]': 'the list of the files in the bucket is malformed',
    b'{"items": [{"name": "models/nfnet_f0_im21k/../../a", "size": "1"}]}': 'which is not inside the folder',
    b'{"items": [{"name": "/etc/passwd", "size": "1"}]}': 'which is not inside the folder',
    b'{"items": [{"name": "models/nfnet_f0_im21k/a"}]}': "is malformed: 'md5Hash'",
}


@pytest.mark.parametrize('answer', [*BAD_LISTS, None], ids=lambda answer: str(answer)[:60])
def test_bad_lists_of_a_bucket(answer, web, cache, tmp_path, monkeypatch):
    monkeypatch.setattr(hub, 'check_installed', lambda: None)
    _, address = bucket(web, unpacked('orbax0.2.7-numpy', tmp_path))
    row_at(web, monkeypatch, 'deepmind/nfnet_f0_im21k')
    web.serve(address, status(401) if answer is None else file(answer))
    with pytest.raises(ReadError, match=BAD_LISTS.get(answer, 'the server answers 401 Unauthorized')) as caught:
        local_file('deepmind/nfnet_f0_im21k')
    assert '\n' not in str(caught.value) and not [p for p in cache.rglob('*') if p.is_file() and p.suffix != '.lock']


def test_orbax_is_asked_for_before_the_download(monkeypatch):
    def missing():
        raise ReadError('pip install orbax-checkpoint')

    monkeypatch.setattr(hub, 'check_installed', missing)
    with pytest.raises(ReadError, match='pip install orbax-checkpoint'):
        local_file('deepmind/nfnet_f0_im21k')


def test_the_page_lists_every_name_and_licence():
    page = (Path(__file__).parents[2] / 'docs/weights.md').read_text()
    lines = [line.split(' | ') for line in page.splitlines() if line.count(' | ') == 3]
    listed = {
        name: (cells[2], cells[3].removesuffix(' |')) for cells in lines for name in re.findall(r'`([^`]+)`', cells[0])
    }
    kinds = dict(pickle='pickle', safetensors='safetensors', orbax='Orbax checkpoint')
    expected = {row.name: (kinds[row.kind], row.licence) for row in PUBLIC_WEIGHTS.values()}
    assert {name: listed[name] for name in expected} == expected
