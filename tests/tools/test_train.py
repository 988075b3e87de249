import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from nfnet_mm.run import read_checkpoint
from tests import toy

ROOT = Path(__file__).parents[2]
DEMO = ROOT / 'demo/configs/mask_rcnn_nfnet_nano_digits.py'


@pytest.fixture
def toy_config(tmp_path):
    file = tmp_path / 'toy_linear.py'
    file.write_text(toy.CONFIG)
    return file


def free_port():
    with socket.socket() as listener:
        listener.bind(('127.0.0.1', 0))
        return listener.getsockname()[1]


def weights(folder):
    return read_checkpoint(folder / 'iter_4.pth')['state_dict']['linear.weight']


def test_trains_and_tests_a_plain_mmengine_config(run_tool, toy_config, tmp_path):
    run = tmp_path / 'run'
    assert (
        run_tool(
            'train',
            toy_config,
            '--work-dir',
            run,
            '--cfg-options',
            'train_dataloader.batch_size=4',
            'experiment_name=plain',
        )[0]
        == 0
    )
    assert (run / 'last_checkpoint').read_text().endswith('iter_4.pth')
    code, _ = run_tool(
        'test',
        toy_config,
        run / 'iter_4.pth',
        '--work-dir',
        tmp_path / 'test',
        '--out',
        tmp_path / 'predictions.pkl',
        '--cfg-options',
        'experiment_name=plain_test',
    )
    assert code == 0 and (tmp_path / 'predictions.pkl').is_file()


def test_resume_auto_goes_on_from_the_last_checkpoint(run_tool, toy_config, tmp_path):
    run = tmp_path / 'run'
    run_tool('train', toy_config, '--work-dir', run, '--cfg-options', 'experiment_name=whole')
    whole = weights(run)
    (run / 'iter_4.pth').unlink()  # as if it had been killed after iter_2.pth
    (run / 'last_checkpoint').write_text(str(run / 'iter_2.pth'))
    run_tool('train', toy_config, '--work-dir', run, '--resume', '--cfg-options', 'experiment_name=second_half')
    torch.testing.assert_close(weights(run), whole, rtol=0, atol=0)


def test_a_requeued_job_s_first_start_takes_load_from(run_tool, toy_config, tmp_path):
    state = dict(state_dict={'linear.weight': torch.full((1, 3), 0.25), 'linear.bias': torch.ones(1)})
    torch.save(state, tmp_path / 'start.pth')
    options = ['--cfg-options', f'load_from={tmp_path}/start.pth']
    run_tool('train', toy_config, '--work-dir', tmp_path / 'plain', *options, 'experiment_name=started')
    run_tool(
        'train', toy_config, '--work-dir', tmp_path / 'queued', '--resume', 'auto', *options, 'experiment_name=queued'
    )
    torch.testing.assert_close(weights(tmp_path / 'queued'), weights(tmp_path / 'plain'), rtol=0, atol=0)
    run_tool('train', toy_config, '--work-dir', tmp_path / 'scratch', '--cfg-options', 'experiment_name=scratch')
    assert not torch.equal(weights(tmp_path / 'scratch'), weights(tmp_path / 'plain'))


def test_a_checkpoint_of_another_model_is_not_scored(run_tool, toy_config, tmp_path):
    def test(content, *args):
        torch.save(content, tmp_path / 'other.pth')
        return run_tool(
            'test',
            toy_config,
            tmp_path / 'other.pth',
            '--work-dir',
            tmp_path / 'test',
            *args,
            '--cfg-options',
            f'experiment_name=foreign{len(list(tmp_path.rglob("*.log")))}',
        )

    good = {'linear.weight': torch.zeros(1, 3), 'linear.bias': torch.zeros(1)}
    for content, message in [
        ({}, '2 missing: linear.bias, linear.weight'),
        (dict(state_dict={}), '2 missing: linear.bias, linear.weight'),
        (
            dict(state_dict={'backbone.weight': torch.zeros(2)}),
            '2 missing: linear.bias, linear.weight; 1 left over: backbone.weight',
        ),
        (dict(state_dict={**good, 'extra': torch.zeros(2)}), '1 left over: extra'),
        (dict(state_dict={**good, 'linear.weight': torch.zeros(2, 3)}), 'size mismatch for linear.weight'),
    ]:
        code, errors = test(content)
        assert code == 2 and errors.count('\n') == 1 and message in errors, errors
        assert ('--allow-missing' in errors) == ('linear.weight' in str(content)), errors
    for content in (dict(state_dict=good), {f'module.{key}': value for key, value in good.items()}):
        assert test(content)[0] == 0
    assert test(dict(state_dict={**good, 'extra': torch.zeros(2)}), '--allow-missing')[0] == 0


def test_the_config_of_a_resumed_run_scores_too(run_tool, toy_config, tmp_path):
    """mmengine writes resume=True into the work folder's config; bare weights have no state to resume."""
    toy_config.write_text(toy.CONFIG + 'resume = True\n')
    torch.save({'linear.weight': torch.zeros(1, 3), 'linear.bias': torch.zeros(1)}, tmp_path / 'bare.pth')
    assert (
        run_tool(
            'test',
            toy_config,
            tmp_path / 'bare.pth',
            '--work-dir',
            tmp_path / 'test',
            '--cfg-options',
            'experiment_name=resumed_config',
            'train_dataloader.batch_size=3',
        )[0]
        == 0
    )
    torch.save({'linear.weight': torch.zeros(1, 3), 'extra': torch.zeros(1)}, tmp_path / 'bare.pth')
    assert (
        run_tool(
            'test',
            toy_config,
            tmp_path / 'bare.pth',
            '--work-dir',
            tmp_path / 'test',
            '--cfg-options',
            'experiment_name=resumed_config2',
        )[0]
        == 2
    )


def test_load_from_a_file_without_the_model_is_refused(run_tool, toy_config, tmp_path):
    torch.save({}, tmp_path / 'empty.pth')
    code, errors = run_tool(
        'train',
        toy_config,
        '--work-dir',
        tmp_path / 'run',
        '--cfg-options',
        f'load_from={tmp_path}/empty.pth',
        'experiment_name=from_empty',
    )
    assert code == 2 and '2 missing: linear.bias, linear.weight' in errors


def test_resuming_from_another_model_is_refused(run_tool, toy_config, tmp_path):
    run_tool('train', toy_config, '--work-dir', tmp_path / 'run', '--cfg-options', 'experiment_name=to_resume')
    file = tmp_path / 'run/iter_2.pth'
    content = read_checkpoint(file)
    content['state_dict'] = {'backbone.weight': torch.zeros(2)}
    torch.save(content, file)
    code, errors = run_tool(
        'train',
        toy_config,
        '--work-dir',
        tmp_path / 'run',
        '--resume',
        file,
        '--cfg-options',
        'experiment_name=resumed_from_other',
    )
    assert code == 2 and '2 missing: linear.bias, linear.weight; 1 left over: backbone.weight' in errors


def test_two_cpu_processes_equal_one(run_tool, toy_config, tmp_path):
    run_tool('train', toy_config, '--work-dir', tmp_path / 'one', '--cfg-options', 'experiment_name=one_process')
    done = subprocess.run(
        ['bash', ROOT / 'tools/dist_train.sh', toy_config, '2', '--work-dir', tmp_path / 'two'],
        cwd=tmp_path,
        env=dict(
            os.environ, PYTHON=sys.executable, PORT=str(free_port()), CUDA_VISIBLE_DEVICES='-1', OMP_NUM_THREADS='1'
        ),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert 'batch 8 = 2 samples x 2 devices x 2 accumulated' in done.stdout
    torch.testing.assert_close(weights(tmp_path / 'two'), weights(tmp_path / 'one'), rtol=1e-6, atol=1e-7)


def test_an_error_is_one_line_and_an_exit_code_without_traceback(tmp_path):
    done = subprocess.run(
        [sys.executable, ROOT / 'tools/train.py', 'configs/mask_rcnn_nfnet_f9_fpn.py'],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and done.stdout == ''
    assert done.stderr.count('\n') == 1 and done.stderr.startswith("error: config 'configs/mask_rcnn_nfnet_f9_fpn.py'")
    assert "did you mean 'mask_rcnn_nfnet_f" in done.stderr


@pytest.mark.parametrize(
    'args,message',
    [
        (['--amp', '--cfg-options', 'optim_wrapper.type=ApexOptimWrapper'], "wrapper 'ApexOptimWrapper'"),
        (['--resume', 'none.pth'], "checkpoint 'none.pth' does not exist"),
        (['--amp'], "'AmpOptimWrapper' needs an accelerator"),
        (['--cfg-options', 'train_cfg.total_batch=9'], 'a total batch of 9 is not a multiple of 2 samples x 1 devices'),
        (['--launcher', 'slurm'], "launcher 'slurm' needs an accelerator"),
        (['--cfg-options', 'seven'], '--cfg-options takes KEY=VALUE pairs'),
        (
            ['--cfg-options', "custom_hooks=[dict(type='nfnet_mm.HangHook',timeout=9)]"],
            "as a hook does, is for a config: got custom_hooks=[dict(type='nfnet_mm.HangHook',timeout=9)]",
        ),
        (['--cfg-options', 'val_dataloader.a=[1,(2]'], 'lists of them; what needs a dict'),
        (
            ['--cfg-options', 'optim_wrapper.type=nfnet_mm.AGCOptimWrapper', 'optim_wrapper.agc.cliping=0.1'],
            "agc key 'cliping' is unknown: agc takes 'clipping' and 'eps'; did you mean 'clipping'?",
        ),
    ],
)
def test_bad_arguments(run_tool, toy_config, monkeypatch, args, message):
    if args[-1] in ('slurm', '--amp') and torch.cuda.is_available():
        pytest.skip('has an accelerator')
    code, errors = run_tool('train', toy_config, *args)
    assert code == 2 and message in errors and errors.count('\n') == 1


def test_bad_arguments_of_test(run_tool, toy_config):
    code, errors = run_tool('test', toy_config, 'none.pth')
    assert code == 2 and "checkpoint 'none.pth' does not exist" in errors
    code, errors = run_tool('test', 'none.py', 'none.pth')
    assert code == 2 and "config 'none.py' does not exist" in errors


@pytest.mark.parametrize('content,message', [(None, 'does not exist'), ('{"shapes": []}', 'is not a COCO file')])
def test_bad_annotation_file_stops_before_anything_is_built(run_tool, tmp_path, content, message):
    pytest.importorskip('mmdet')
    (tmp_path / 'annotations').mkdir()
    if content:
        (tmp_path / 'annotations/train.json').write_text(content)
    code, errors = run_tool(
        'train', DEMO, '--work-dir', tmp_path / 'run', '--cfg-options', f'train_dataloader.dataset.data_root={tmp_path}'
    )
    assert code == 2 and errors.count('\n') == 1 and message in errors
    assert str(tmp_path / 'annotations/train.json') in errors and 'images, annotations, categories' in errors
    assert not (tmp_path / 'run').exists()
