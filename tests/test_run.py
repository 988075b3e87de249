import io
import json
import os
from pathlib import Path

import mmengine.optim
import pytest
import torch
from mmengine import Config

from nfnet_mm import run
from nfnet_mm.engine import AGCOptimWrapper
from nfnet_mm.engine.checkpoint_file import write_sealed
from nfnet_mm.errors import UserError

COCO = dict(images=[], annotations=[], categories=[])


def test_config_gets_work_dir_options_and_launcher(tmp_path):
    file = tmp_path / 'some_model.py'
    file.write_text('a = dict(b=1)\n')
    cfg = run.load_config(str(file), {'a.b': 2})
    assert (cfg.a.b, cfg.work_dir, cfg.launcher) == (2, 'work_dirs/some_model', 'none')
    file.write_text("work_dir = 'own'\n")
    assert run.load_config(str(file)).work_dir == 'own'
    assert run.load_config(str(file), work_dir='cli', launcher='pytorch').work_dir == 'cli'


@pytest.mark.parametrize(
    'key, near', [('num_clases', 'num_classes'), ('weight', 'weights'), ('trian_cfg.max_iters', 'train_cfg')]
)
def test_a_misspelt_option_is_not_a_new_value(tmp_path, key, near):
    config = tmp_path / 'a.py'
    config.write_text("train_cfg = dict(max_iters=1)\ntest_evaluator = dict(type='ToyError')\n")
    with pytest.raises(UserError) as error:
        run.load_config(str(config), {key: 3})
    first = key.partition('.')[0]
    assert str(error.value) == f'--cfg-options {key}=3: the config has no {first!r}. Did you mean {near!r}?'
    new = {'val_evaluator': 1, 'tta_pipeline': 2, 'anything': 3}  # near test_evaluator, but read by mmengine
    assert {name: run.load_config(str(config), new)[name] for name in new} == new


def test_missing_config_suggests_near_names(tmp_path):
    (tmp_path / 'mask_rcnn_nfnet_f0_fpn.py').write_text('')
    (tmp_path / 'other.py').write_text('')
    with pytest.raises(UserError) as error:
        run.load_config(str(tmp_path / 'mask_rcnn_nfnet_f1_fpn.py'))
    assert "mask_rcnn_nfnet_f1_fpn.py' does not exist" in str(error.value)
    assert "did you mean 'mask_rcnn_nfnet_f0_fpn.py'?" in str(error.value) and 'other' not in str(error.value)
    with pytest.raises(UserError, match='is a folder'):
        run.load_config(str(tmp_path))
    with pytest.raises(UserError, match='no_such_folder.*does not exist.*nothing there has a like name'):
        run.load_config(str(tmp_path / 'no_such_folder' / 'deeper' / 'x.py'))


@pytest.mark.parametrize(
    'kind,mixed',
    [
        ('OptimWrapper', 'AmpOptimWrapper'),
        ('mmengine.OptimWrapper', 'AmpOptimWrapper'),
        ('AmpOptimWrapper', 'AmpOptimWrapper'),
        ('nfnet_mm.AGCOptimWrapper', 'nfnet_mm.AmpAGCOptimWrapper'),
        ('AGCOptimWrapper', 'nfnet_mm.AmpAGCOptimWrapper'),
        ('nfnet_mm.AmpAGCOptimWrapper', 'nfnet_mm.AmpAGCOptimWrapper'),
        (None, 'AmpOptimWrapper'),
    ],
)
def test_amp_picks_the_mixed_precision_form_and_keeps_the_rest(kind, mixed):
    keys = dict(
        optimizer=dict(type='SGD', lr=0.1),
        agc=dict(clipping=0.02),
        constructor='nfnet_mm.X',
        dtype='bfloat16',
        accumulative_counts=3,
    )
    cfg = Config(dict(optim_wrapper=dict(keys, type=kind) if kind else dict(keys)))
    run.use_amp(cfg)
    assert cfg.optim_wrapper.to_dict() == dict(keys, type=mixed)


def test_mixed_precision_forms_are_registered_and_take_what_the_plain_ones_take():
    from mmengine.registry import OPTIM_WRAPPERS

    for plain, mixed in run.MIXED_PRECISION.items():
        assert OPTIM_WRAPPERS.get(mixed).__name__ == 'Amp' + OPTIM_WRAPPERS.get(plain).__name__


def test_amp_does_not_take_another_class_of_the_same_name():
    class OptimWrapper(mmengine.optim.OptimWrapper):
        """Does something else."""

    cfg = Config(dict(optim_wrapper=dict(type=OptimWrapper)))
    with pytest.raises(UserError, match='does not know the optimizer wrapper .*test_run.OptimWrapper'):
        run.use_amp(cfg)
    with pytest.raises(UserError, match='optim_wrapper=None'):
        run.use_amp(Config(dict(model=dict())))


def test_amp_takes_a_class():
    from mmengine.optim import OptimWrapper

    cfg = Config(dict(optim_wrapper=dict(type=OptimWrapper)))
    run.use_amp(cfg)
    assert cfg.optim_wrapper.type == 'AmpOptimWrapper'
    cfg = Config(dict(optim_wrapper=dict(type=AGCOptimWrapper)))
    run.use_amp(cfg)
    assert cfg.optim_wrapper.type == 'nfnet_mm.AmpAGCOptimWrapper'


@pytest.mark.parametrize('kind', ['ApexOptimWrapper', 'mmdet.OptimWrapper2', 'other.AGCOptimWrapper'])
def test_amp_refuses_a_wrapper_it_does_not_know(kind):
    cfg = Config(dict(optim_wrapper=dict(type=kind)))
    with pytest.raises(UserError) as error:
        run.use_amp(cfg)
    for name in (kind, 'OptimWrapper', 'AmpOptimWrapper', 'nfnet_mm.AGCOptimWrapper', 'nfnet_mm.AmpAGCOptimWrapper'):
        assert name in str(error.value)
    assert cfg.optim_wrapper.type == kind


@pytest.fixture(params=['parsed', 'searched'])
def how(request, monkeypatch):
    if request.param == 'searched':  # as a file too large to parse first
        monkeypatch.setattr(run.coco_files, 'PARSE_LIMIT', -1)
    return request.param


@pytest.mark.parametrize(
    'content,message',
    [
        ('{"images": [], "annot', 'is not JSON|is cut off'),
        ('{"images": [], "categories": []}', 'lacks annotations; a COCO file'),
        ('{"version": "1.0", "shapes": []}', 'lacks images, annotations, categories'),
        ('[1, 2]', 'lacks images|is cut off'),
        ('{"images": {}, "annotations": [], "categories": []}', 'lacks images;'),
    ],
)
def test_what_is_not_coco(tmp_path, how, content, message):
    file = tmp_path / 'train.json'
    file.write_text(content)
    with pytest.raises(UserError, match=message) as error:
        run.check_coco_file(str(file))
    assert str(file) in str(error.value) and 'images, annotations, categories' in str(error.value)


def test_what_is_coco(tmp_path, how):
    file = tmp_path / 'train.json'
    file.write_text(json.dumps(COCO, indent=2) + '\n')
    run.check_coco_file(str(file))


def coco_config(root, **test_evaluator):
    """A dataset inside two wrappers, a plain one, and a metric."""
    data = dict(type='CocoDataset', data_root=str(root), ann_file='train.json')
    wrapped = dict(type='RepeatDataset', times=2, dataset=dict(type='ConcatDataset', datasets=[data]))
    return Config(
        dict(
            default_scope='mmdet',
            train_dataloader=dict(dataset=wrapped),
            val_dataloader=dict(dataset=dict(data, ann_file='val.json')),
            val_evaluator=[dict(type='CocoMetric', ann_file=str(root / 'metric.json'))],
            test_dataloader=dict(dataset=dict(data, ann_file='test.json')),
            test_evaluator=dict(type='CocoMetric', **test_evaluator),
        )
    )


def test_every_coco_file_of_a_config_is_checked(tmp_path):
    pytest.importorskip('mmdet')
    cfg = coco_config(tmp_path)
    for name in ('train', 'val', 'metric'):
        with pytest.raises(UserError, match=f"{name}.json' does not exist"):
            run.check_coco_files(cfg, ('train', 'val'))
        (tmp_path / f'{name}.json').write_text(json.dumps(COCO))
    run.check_coco_files(cfg, ('train', 'val'))


def test_a_test_set_without_answers_may_only_be_predicted_on(tmp_path):
    pytest.importorskip('mmdet')
    (tmp_path / 'test.json').write_text('{"images": [], "categories": []}')
    with pytest.raises(UserError, match='lacks annotations'):
        run.check_coco_files(coco_config(tmp_path), ('test',))
    run.check_coco_files(coco_config(tmp_path, format_only=True), ('test',))


def test_other_datasets_are_left_alone():
    cfg = Config(dict(train_dataloader=dict(dataset=dict(type='ToyNumbers', ann_file='not_there.txt'))))
    run.check_coco_files(cfg, ('train', 'val', 'test'))


def test_pictures_without_answers_need_none(tmp_path):
    """Semi-supervised COCO as mmdet ships it: the file of the unlabelled pictures is without annotations."""
    pytest.importorskip('mmdet')
    labelled = dict(
        type='CocoDataset',
        data_root=str(tmp_path),
        ann_file='instances_train2017.json',
        pipeline=[dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True)],
    )
    unlabelled = dict(
        labelled,
        ann_file='instances_unlabeled2017.json',
        filter_cfg=dict(filter_empty_gt=False),
        pipeline=[dict(type='LoadImageFromFile'), dict(type='LoadEmptyAnnotations')],
    )
    cfg = Config(
        dict(
            default_scope='mmdet',
            train_dataloader=dict(dataset=dict(type='ConcatDataset', datasets=[labelled, unlabelled])),
        )
    )
    (tmp_path / 'instances_train2017.json').write_text(json.dumps(COCO))
    (tmp_path / 'instances_unlabeled2017.json').write_text('{"images": [], "categories": []}')
    run.check_coco_files(cfg, ('train',))
    (tmp_path / 'instances_unlabeled2017.json').write_text('{"images": []}')
    with pytest.raises(UserError, match='unlabeled2017.json.* lacks categories'):
        run.check_coco_files(cfg, ('train',))
    (tmp_path / 'instances_train2017.json').write_text('{"images": [], "categories": []}')
    with pytest.raises(UserError, match='train2017.json.* lacks annotations'):
        run.check_coco_files(cfg, ('train',))


def test_the_check_for_an_accelerator_knows_the_wrapper_as_a_class_too():
    from mmengine.device import get_device
    from mmengine.optim import AmpOptimWrapper, OptimWrapper

    if get_device() != 'cpu':
        pytest.skip('has an accelerator')
    with pytest.raises(UserError, match="'AmpOptimWrapper' needs an accelerator"):
        run.check_amp_device(Config(dict(optim_wrapper=dict(type=AmpOptimWrapper))))
    run.check_amp_device(Config(dict(optim_wrapper=dict(type=OptimWrapper))))


def test_a_first_start_with_resume_begins_from_load_from(tmp_path, capsys, monkeypatch):
    cfg = Config(dict(load_from='start.pth', work_dir=str(tmp_path)))
    run.use_resume(cfg, 'auto')
    assert cfg.load_from == 'start.pth' and not cfg.resume
    monkeypatch.setenv('SLURM_PROCID', '1')
    run.use_resume(cfg, 'auto')  # of several processes one speaks
    said = capsys.readouterr().out
    assert (
        said.count('\n') == 1
        and f"nothing to resume in '{tmp_path}': training starts from load_from='start.pth'" in said
    )
    with pytest.raises(UserError, match=f"nothing to resume in '{tmp_path}'; name one"):
        run.use_resume(cfg, 'last')


def test_a_run_that_the_launcher_starts_again_must_resume(tmp_path, monkeypatch):
    monkeypatch.setenv('TORCHELASTIC_MAX_RESTARTS', '3')  # as torchrun does
    cfg = Config(dict(work_dir=str(tmp_path)))
    for resume, place in ((None, 'anew'), ('iter_2.pth', "at 'iter_2.pth'")):
        with pytest.raises(UserError, match=f'each time it would begin {place}: add --resume auto'):
            run.use_resume(cfg, resume)
    run.use_resume(cfg, 'auto')
    assert not cfg.resume


def test_a_moved_folder_s_last_checkpoint_is_the_one_of_its_name_there(tmp_path, capsys):
    cfg = Config(dict(work_dir=str(tmp_path)))
    (tmp_path / 'last_checkpoint').write_text('/the/folder/was/moved/iter_2.pth')
    for how in ('auto', 'last'):  # there was one, so even a first start does not begin anew
        with pytest.raises(UserError, match='nothing to resume in .*, where no checkpoint is whole'):
            run.use_resume(cfg, how)
    assert f"not resumed from '{tmp_path}/iter_2.pth': it does not exist" in capsys.readouterr().out
    torch.save({}, tmp_path / 'iter_2.pth')
    run.use_resume(cfg, 'auto')
    assert cfg.resume and cfg.load_from == str(tmp_path / 'iter_2.pth')


@pytest.mark.parametrize('hooks', [None, dict(checkpoint=None), dict(checkpoint=dict(out_dir='elsewhere'))])
def test_checkpoints_kept_in_another_folder_or_remotely(tmp_path, hooks):
    work, out = tmp_path / 'work', tmp_path / 'out/work'
    out.mkdir(parents=True)
    work.mkdir()
    torch.save({}, out / 'epoch_2.pth')
    cfg = Config(dict(work_dir=str(work), default_hooks=hooks))
    for last in (f'{out}/epoch_2.pth', 's3://bucket/work/epoch_2.pth'):
        (work / 'last_checkpoint').write_text(last)
        run.use_resume(cfg, 'auto')
        assert cfg.resume and cfg.load_from == last
    (out / 'last_checkpoint').touch()  # so this is a work folder of its own, which ours was copied from
    (work / 'last_checkpoint').write_text(f'{out}/epoch_2.pth')
    with pytest.raises(UserError, match='nothing to resume'):
        run.use_resume(cfg, 'auto')


def test_resuming_passes_over_what_is_not_whole(tmp_path, capsys):
    """Of checkpoints 2 to 12 the last two are damaged, and another run's, earlier in this folder, had a 20th."""
    content = io.BytesIO()
    torch.save(dict(weight=torch.randn(99)), content)
    for number in (20, 2, 4, 6, 8, 10, 12):
        write_sealed(tmp_path / f'iter_{number}.pth', content.getvalue())
        os.utime(tmp_path / f'iter_{number}.pth', (10, 10) if number == 20 else (1000 + number, 1000 + number))
    write_sealed(tmp_path / 'best_score_iter_30.pth', content.getvalue())
    (tmp_path / 'last_checkpoint').write_text(str(tmp_path / 'iter_10.pth'))
    os.utime(tmp_path / 'last_checkpoint', (1010, 1010))
    cfg = Config(dict(work_dir=str(tmp_path)))

    def resumed():
        run.use_resume(cfg, 'last')
        return Path(cfg.load_from).name

    assert resumed() == 'iter_12.pth'  # a kill came before last_checkpoint named it
    os.truncate(tmp_path / 'iter_12.pth', 500)
    assert resumed() == 'iter_10.pth'
    flipped = bytearray((tmp_path / 'iter_10.pth').read_bytes())
    flipped[700] ^= 1
    (tmp_path / 'iter_10.pth').write_bytes(flipped)
    capsys.readouterr()
    assert resumed() == 'iter_8.pth'
    said = capsys.readouterr().out
    assert "iter_12.pth': it is cut off or broken" in said and "iter_10.pth': its content was changed" in said
    (tmp_path / 'last_checkpoint').write_text('')  # cut off too
    (tmp_path / 'iter_20.pth').unlink()
    for number in (8, 6, 4):
        (tmp_path / f'iter_{number}.pth').write_bytes(b'')
    assert resumed() == 'iter_2.pth'


def test_names_of_one_s_own_are_found_and_published_files_are_not_resumed(tmp_path):
    for name in ('model-010.pt', 'model-020.pt', 'best_score_model-030.pt', 'epoch_3-abcdef12.pth', 'epoch_4.old.pth'):
        torch.save({}, tmp_path / name)
    cfg = Config(dict(work_dir=str(tmp_path), default_hooks=dict(checkpoint=dict(filename_tmpl='model-{:03d}.pt'))))
    for last in (None, 'model-020.pt'):
        if last:
            (tmp_path / 'last_checkpoint').write_text(str(tmp_path / last))
        run.use_resume(cfg, 'last')
        assert cfg.load_from == str(tmp_path / 'model-020.pt')
    os.truncate(tmp_path / 'model-020.pt', 100)
    run.use_resume(cfg, 'last')
    assert cfg.load_from == str(tmp_path / 'model-010.pt')
    # and where the template is the config's no more, last_checkpoint still names one
    cfg = Config(dict(work_dir=str(tmp_path)))
    (tmp_path / 'last_checkpoint').write_text(str(tmp_path / 'model-010.pt'))
    run.use_resume(cfg, 'last')
    assert cfg.load_from == str(tmp_path / 'model-010.pt')
    (tmp_path / 'model-010.pt').unlink()
    with pytest.raises(UserError, match='nothing to resume'):
        run.use_resume(cfg, 'last')


def test_resume_and_tta_and_dump_name_what_is_missing(tmp_path):
    cfg = Config(dict(model=dict(type='M'), load_from='old'))
    run.use_resume(cfg, None)
    assert cfg.load_from == 'old' and 'resume' not in cfg
    with pytest.raises(UserError, match="checkpoint '.*epoch_9.pth' does not exist"):
        run.use_resume(cfg, str(tmp_path / 'epoch_9.pth'))
    with pytest.raises(UserError, match='--tta needs tta_model and tta_pipeline'):
        run.use_tta(cfg)
    with pytest.raises(UserError, match="--out 'x.json' must end in .pkl or .pickle"):
        run.check_out('x.json', None)
    with pytest.raises(UserError, match="--out 'x.csv' must end in .json, .yaml, .yml, .pkl or .pickle"):
        run.check_out('x.csv', 'metrics')
    with pytest.raises(UserError, match='--out-item metrics needs a file to write: --out FILE'):
        run.check_out(None, 'metrics')
    run.check_out('x.json', 'metrics')


TOTAL = dict(type='nfnet_mm.TotalBatchTrainLoop', total_batch=256, lr_batch=256)


def test_auto_scale_lr_leaves_a_total_batch_alone(capsys):
    cfg = Config(dict(train_cfg=TOTAL, auto_scale_lr=dict(base_batch_size=16)))
    run.use_auto_scale_lr(cfg)
    assert 'enable' not in cfg.auto_scale_lr
    assert 'TotalBatchTrainLoop keeps the total batch of 256 on any number of devices' in capsys.readouterr().out
    with pytest.raises(UserError, match='train_cfg.lr_batch, the batch that the learning rate is meant for, would'):
        run.use_auto_scale_lr(Config(dict(train_cfg=dict(TOTAL, lr_batch=None))))


def test_auto_scale_lr_needs_a_batch_size():
    for scale in ({}, dict(auto_scale_lr=dict(enable=False))):
        with pytest.raises(UserError, match=r'--auto-scale-lr needs auto_scale_lr=dict\(base_batch_size=...\)'):
            run.use_auto_scale_lr(Config(dict(train_cfg=dict(by_epoch=True), **scale)))


def test_loaders_and_validation():
    loader = dict(num_workers=0, persistent_workers=True, pin_memory=True)
    cfg = Config(dict(train_dataloader=loader, val_dataloader=dict(loader), val_cfg=dict(), val_evaluator=dict()))
    with pytest.raises(UserError, match='train_dataloader.persistent_workers=True needs workers.* --no-persistent-wor'):
        run.set_loaders(cfg)
    run.set_loaders(cfg, pin_memory=False, persistent_workers=False)
    assert cfg.val_dataloader == dict(num_workers=0, persistent_workers=False, pin_memory=False)
    run.skip_validation(cfg)
    assert cfg.val_cfg is cfg.val_dataloader is cfg.val_evaluator is None


def test_tta_of_a_classifier_that_configures_none_averages_over_the_mirror_image():
    pipeline = [dict(type='LoadImageFromFile'), dict(type='CenterCrop'), dict(type='PackInputs')]
    cfg = Config(
        dict(default_scope='mmpretrain', model=dict(type='M'), test_dataloader=dict(dataset=dict(pipeline=pipeline)))
    )
    run.use_tta(cfg)
    assert cfg.model == dict(type='AverageClsScoreTTA', module=dict(type='M'))
    *before, last = cfg.test_dataloader.dataset.pipeline
    assert before == pipeline[:2] and [len(views) for views in last.transforms] == [2, 1]
    assert [flip.prob for flip in last.transforms[0]] == [1.0, 0.0] and last.transforms[1] == pipeline[2:]


def test_data_root_is_replaced_everywhere():
    cfg = coco_config(__import__('pathlib').Path('old'))
    cfg.data_root, cfg.val_evaluator = 'old/', dict(type='CocoMetric', ann_file='old/a/val.json')
    run.use_data_root(cfg, 'new')
    assert cfg.train_dataloader.dataset.dataset.datasets[0].data_root == 'new/'
    assert cfg.val_dataloader.dataset.data_root == cfg.test_dataloader.dataset.data_root == 'new/'
    assert cfg.val_evaluator.ann_file == 'new/a/val.json'
