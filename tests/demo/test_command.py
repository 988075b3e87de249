import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
pytest.importorskip('mmdet')
pytest.importorskip('mmcv.ops')


def demo(folder, *options, data='digits'):
    done = subprocess.run(
        [sys.executable, ROOT / 'demo', '--data', folder / data, '--work-dir', folder / 'run', *options],
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def last_figures(text):
    return [float(figure) for figure in re.search(r'box AP ([\d.]+), mask AP ([\d.]+) on', text).groups()]


def losses(folder, run='run'):
    rows = map(json.loads, next((folder / run).rglob('scalars.json')).read_text().splitlines())
    return [(row['step'], row['loss'], row['agc/clipped_fraction']) for row in rows if 'loss' in row]


def test_short_demo_says_where_things_are_and_repeats_its_numbers(tmp_path):
    short = [
        '--train',
        '24',
        '--val',
        '6',
        '--pictures',
        '2',
        '--cfg-options',
        'train_cfg.max_iters=3',
        'train_cfg.val_interval=2',
        'default_hooks.logger.interval=1',
    ]
    text = demo(tmp_path, *short)
    *_, weights, log, pictures, page, result = text.strip().splitlines()
    assert '000002.png' in (tmp_path / page.split()[1]).read_text()
    assert (tmp_path / weights.split()[1]).is_file() and (tmp_path / log.split()[1]).is_file()
    folder = Path(pictures.split()[1])
    assert {path.name for path in folder.glob('*.png')} == {'000001.png', '000002.png', 'curves.png'}
    assert all(Image.open(path).size[0] > 400 for path in folder.glob('*.png'))
    assert result.startswith('result:') and result.endswith('on 6 validation pictures') and last_figures(text)
    first = losses(tmp_path)
    assert [step for step, *_ in first] == [1, 2, 3] and all(0 < clipped <= 1 for *_, clipped in first)
    (tmp_path / 'again').mkdir()
    (tmp_path / 'digits').rename(tmp_path / 'again/digits')  # also: the second call draws nothing
    demo(tmp_path / 'again', *short)
    assert losses(tmp_path / 'again') == first


@pytest.mark.parametrize(
    'task, result, drawn',
    [
        ('classification', r'top-1 ([\d.]+)% on 6 validation pictures', {'predictions.png'}),
        ('segmentation', r'mIoU ([\d.]+) on 6 validation pictures', {'000001.png', '000002.png'}),
        (
            'depth',
            r'delta1 ([\d.]+)%, rel [\d.]+, rms [\d.]+ m on 6 validation pictures',
            {'room_0001.png', 'room_0002.png'},
        ),
    ],
    ids=('classification', 'segmentation', 'depth'),
)
def test_other_tasks_write_their_pictures_and_result_and_repeat_their_numbers(task, result, drawn, tmp_path, run_tool):
    no_workers = [
        f'{split}_dataloader.{key}'
        for split in ('train', 'val')
        for key in ('num_workers=0', 'persistent_workers=False')
    ]
    for run in ('first', 'second'):  # the second finds its data drawn
        code, errors = run_tool(
            'demo',
            task,
            '--data',
            tmp_path / 'data',
            '--work-dir',
            tmp_path / run,
            '--train',
            24,
            '--val',
            6,
            '--pictures',
            2,
            '--cfg-options',
            'train_cfg.max_iters=3',
            'train_cfg.val_interval=2',
            'default_hooks.logger.interval=1',
            'train_dataloader.batch_size=4',
            f'experiment_name={task}_{run}',
            *no_workers,
        )
        assert code == 0, errors
        text = (tmp_path / run / 'result.txt').read_text()
        assert text.startswith(f'{task}: ') and text.endswith(f'; {tmp_path / run / "pictures"}/\n')
    figure = float(re.search(result, text)[1])
    if task == 'classification' and figure < 100:
        drawn = drawn | {'mistakes.png'}
    assert {path.name for path in (tmp_path / run / 'pictures').glob('*.png')} == drawn | {'curves.png'}
    first, second = losses(tmp_path, 'first'), losses(tmp_path, 'second')
    assert [step for step, *_ in first] == [1, 2, 3] and all(0 < clipped <= 1 for *_, clipped in first)
    assert second == first


def test_unknown_task_is_refused_with_the_known_ones(run_tool):
    code, errors = run_tool('demo', 'pose')
    assert code == 2 and "'pose'" in errors and all(task in errors for task in ('detection', 'segmentation'))


def test_demo_refuses_a_folder_that_is_not_its_own(tmp_path, run_tool):
    (tmp_path / 'thesis.txt').write_text('')
    code, errors = run_tool('demo', '--data', tmp_path, '--work-dir', tmp_path / 'run')
    assert code == 2 and errors.count('\n') == 1 and 'will not be overwritten' in errors


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    'task, bars',
    [
        ('detection', {'box AP': 75.0, 'mask AP': 73.0}),
        ('classification', {'top-1': 97.0}),
        ('segmentation', {'mIoU': 80.0}),
        ('depth', {'delta1': 90.0}),
    ],
)
def test_demo_learns(task, bars, tmp_path):
    text = demo(tmp_path, task)
    for name, bar in bars.items():
        assert float(re.search(rf'{name} ([\d.]+)', text)[1]) >= bar


def test_an_option_without_a_value_is_one_line(run_tool):
    code, errors = run_tool('demo', '--cfg-options', 'seven')
    assert code == 2 and errors == (
        'error: --cfg-options takes KEY=VALUE pairs, such as train_dataloader.batch_size=8\n'
    )
