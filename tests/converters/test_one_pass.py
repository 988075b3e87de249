"""A file is read once, and each of its tensors looked at once."""

import io
import pickle
from collections import Counter

import pytest
import torch
from mmengine.registry import MODELS

from nfnet_mm.converters import convert_file, from_deepmind, to_timm
from nfnet_mm.converters.formats import read
from nfnet_mm.converters.formats.safetensors import write_safetensors
from tests.converters.networks import deepmind_tree

WIDTHS = (64, 128, 128, 192)


@pytest.fixture
def tree():
    return deepmind_tree(widths=WIDTHS)


CLASSIFIERS = ['deepmind', 'timm', 'timm.safetensors', 'ours', 'ours.safetensors']


@pytest.fixture(params=[*CLASSIFIERS, 'detector'])
def source(request, tree, tmp_path):
    path = tmp_path / request.param
    ours = from_deepmind(tree)
    if request.param == 'deepmind':
        path.write_bytes(pickle.dumps(tree))
    elif request.param == 'detector':
        rest = {'neck.convs.0.weight': torch.ones(8, 8), 'roi_head.count': torch.tensor(3)}
        torch.save({'state_dict': {k: v for k, v in ours.items() if 'head' not in k} | rest}, path)
    else:
        state = to_timm(ours) if request.param.startswith('timm') else ours
        if path.suffix:
            with open(path, 'wb') as file:
                write_safetensors(state, {}, file)
        else:
            torch.save(state, path)
    return path


class Looks:
    """Counts the looks at each tensor's values, and the bytes read of a file."""

    def __init__(self, monkeypatch):
        self.at, self.bytes = Counter(), 0
        looks, aminmax = self, torch.aminmax

        class File(io.FileIO):
            def readinto(self, buffer):
                count = super().readinto(buffer)
                looks.bytes += count
                return count

        def counted(tensor):
            self.at[tensor.data_ptr()] += 1
            return aminmax(tensor)

        monkeypatch.setattr(torch, 'aminmax', counted)
        for function in ('isfinite', 'isnan', 'isinf'):
            monkeypatch.setattr(torch, function, None)  # not looked at in another way either
        monkeypatch.setattr(read, 'open', lambda path, mode: io.BufferedReader(File(path)), raising=False)

    def check(self, tensors, source):
        assert set(self.at.values()) == {1} and len(self.at) == tensors
        # The headers of an archive's members are read ahead; half of the tensors again would be more.
        assert self.bytes < 1.4 * source.stat().st_size


@pytest.mark.parametrize('source', CLASSIFIERS, indirect=True)
@pytest.mark.parametrize('to', ['ours', 'timm'])
def test_converting(source, to, tree, tmp_path, monkeypatch):
    looks = Looks(monkeypatch)
    convert_file(str(source), str(tmp_path / 'target.pth'), to=to)
    looks.check(sum(map(len, tree.values())), source)


def test_starting_a_backbone(source, tree, monkeypatch):
    arch = dict(widths=WIDTHS, depths=(1, 2, 1, 1), group_width=4)
    init = dict(type='nfnet_mm.NFPretrained', checkpoint=str(source))
    model = MODELS.build(dict(type='nfnet_mm.NFNet', arch=arch, init_cfg=init))
    looks = Looks(monkeypatch)
    model.init_weights()
    assert torch.equal(model.stem.conv0.gain, torch.tensor(tree['NFNet/~/stem_conv0']['gain']))
    looks.check(sum(map(len, tree.values())) - 2 * (source.name == 'detector'), source)
