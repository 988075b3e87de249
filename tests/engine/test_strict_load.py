import pytest
import torch
from mmengine.registry import MODELS
from torch import nn

from nfnet_mm.engine import strict_load
from nfnet_mm.errors import UserError

ARCH = dict(widths=(8, 8, 8, 8), depths=(1, 1, 1, 1), group_width=4)


def mismatches(model, checkpoint):
    wrong, left_over, _ = strict_load.mismatches(model, checkpoint)
    return wrong + left_over


def net(**arch):
    return MODELS.build(dict(type='nfnet_mm.NFNet', arch=dict(ARCH, **arch)))


def test_a_whole_checkpoint_fits_and_is_loaded():
    one, other = net(), net()
    assert mismatches(one, dict(state_dict=other.state_dict(), meta=dict(dialect='authors'))) == []
    assert all(torch.equal(value, other.state_dict()[key]) for key, value in one.state_dict().items())


def test_weights_of_the_other_dialect_would_compute_something_else():
    state = net().state_dict()
    (told,) = mismatches(net(dialect='timm'), dict(state_dict=state, meta=dict(dialect='authors')))
    assert told == (
        "its weights were trained in the dialect 'authors' of weight standardisation, the model computes in 'timm'"
    )
    assert mismatches(net(dialect='timm'), dict(state_dict=state)) == []  # the file does not say


def test_weights_without_skip_gains_are_not_the_paper_s_network():
    state = net(skip_init=False).state_dict()
    (told,) = mismatches(net(), state)
    assert told == ('4 missing: stages.0.0.skip_gain, stages.1.0.skip_gain, stages.2.0.skip_gain, stages.3.0.skip_gain')


def test_old_batch_norms_and_versions():
    model = nn.Sequential(nn.BatchNorm2d(2))
    state = {key: value for key, value in model.state_dict().items() if 'tracked' not in key}
    assert mismatches(model, state) == []
    (told,) = mismatches(model, dict(model.state_dict(), **{'0.weight': torch.zeros(3)}))
    assert 'size mismatch for 0.weight' in told and '[3]' in told and '[2]' in told


@pytest.mark.parametrize(
    'content, message', [([1], 'the file holds a list'), (dict(state_dict=3), 'its state_dict is a int')]
)
def test_what_is_no_checkpoint(content, message):
    (told,) = mismatches(nn.Linear(1, 1), content)
    assert told.startswith(message)


def test_load_hooks_of_modules_that_rename_still_work():
    class Renamed(nn.Linear):
        _version = 2

        def _load_from_state_dict(self, state, prefix, metadata, *args):
            if metadata.get('version', 1) < 2:
                state[f'{prefix}weight'] = state.pop(f'{prefix}kernel')
            super()._load_from_state_dict(state, prefix, metadata, *args)

    old = {'0.kernel': torch.ones(2, 2), '0.bias': torch.zeros(2)}
    model = nn.Sequential(Renamed(2, 2))
    assert mismatches(model, old) == [] and float(model[0].weight.detach().sum()) == 4
    assert mismatches(model, nn.Sequential(Renamed(2, 2)).state_dict()) == []


def test_a_start_from_a_file_that_holds_nothing_of_the_model_is_refused(tmp_path):
    from types import SimpleNamespace

    runner = SimpleNamespace(model=net(), _resume=False)
    lenient = strict_load.StrictLoadHook(allow_missing=True)
    part = {key: value for key, value in net().state_dict().items() if 'stem' in key}
    lenient.after_load_checkpoint(runner, dict(state_dict={**part, 'head.weight': torch.zeros(1)}))
    for content in ({}, dict(state_dict={'encoder.weight': torch.zeros(1)}), [1]):
        with pytest.raises(UserError, match='is not of this model'):
            lenient.after_load_checkpoint(runner, content)


class Student(nn.Module):
    """Takes a plain network's weights by renaming them, as mmdet's semi-supervised detectors do."""

    def __init__(self, classes):
        super().__init__()
        self.student = nn.ModuleDict(dict(body=nn.Linear(2, 2), head=nn.Linear(2, classes)))
        self._register_load_state_dict_pre_hook(self._rename)

    def _rename(self, state, prefix, *args):
        for key in [key for key in state if not key.startswith('student.')]:
            state[f'student.{key}'] = state.pop(key)


def test_what_fits_is_told_after_the_modules_own_renaming():
    plain = nn.ModuleDict(dict(body=nn.Linear(2, 2), head=nn.Linear(2, 3)))
    model = Student(classes=4)
    wrong, left_over, fits = strict_load.mismatches(model, plain.state_dict())
    assert fits and not left_over
    assert [text.split(':')[0] for text in wrong] == [
        'size mismatch for student.head.weight',
        'size mismatch for student.head.bias',
    ]
    assert torch.equal(model.student['body'].weight, plain['body'].weight)
    assert strict_load.mismatches(Student(classes=3), plain.state_dict()) == ([], [], True)
    assert not strict_load.mismatches(model, {'other': torch.zeros(1)})[2]


def test_a_module_under_two_names():
    layer = nn.Linear(2, 2)
    model = nn.ModuleDict(dict(a=layer, b=layer))
    assert mismatches(model, model.state_dict()) == []
    assert mismatches(model, {key: value for key, value in model.state_dict().items() if key[0] == 'a'}) == [
        '2 missing: b.bias, b.weight'
    ]
