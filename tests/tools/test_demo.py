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
        [sys.executable, ROOT / 'tools/demo.py', '--data', folder / data, '--work-dir', folder / 'run', *options],
        cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def last_figures(text):
    return [float(figure) for figure in re.search(r'box AP ([\d.]+), mask AP ([\d.]+) on', text).groups()]


def losses(folder):
    rows = map(json.loads, next((folder / 'run').rglob('scalars.json')).read_text().splitlines())
    return [(row['step'], row['loss'], row['agc/clipped_fraction']) for row in rows if 'loss' in row]


def test_short_demo_says_where_things_are_and_repeats_its_numbers(tmp_path):
    short = ['--train', '24', '--val', '6', '--pictures', '2', '--cfg-options', 'train_cfg.max_iters=3',
             'train_cfg.val_interval=2', 'default_hooks.logger.interval=1']
    text = demo(tmp_path, *short)
    *_, weights, log, pictures, result = text.strip().splitlines()
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


def test_demo_refuses_a_folder_that_is_not_its_own(tmp_path, run_tool):
    (tmp_path / 'thesis.txt').write_text('')
    code, errors = run_tool('demo', '--data', tmp_path, '--work-dir', tmp_path / 'run')
    assert code == 2 and errors.count('\n') == 1 and 'will not be overwritten' in errors


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_demo_learns(tmp_path):
    box, mask = last_figures(demo(tmp_path))
    assert box >= 75.0 and mask >= 73.0
