"""``test`` and ``train`` with folded checkpoints, on pictures of noise."""

from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine import Config
from mmengine.fileio import load

from nfnet_mm.deploy import save_folded
from nfnet_mm.run import load_trained

pytest.importorskip('mmpretrain')
CONFIG = Path(__file__).parents[2] / 'demo/configs/classify_nfnet_nano_digits.py'


@pytest.fixture(scope='module')
def files(tmp_path_factory):
    """A folder with whole.pth and folded.pth, and the options of a run on a few pictures."""
    cv2 = pytest.importorskip('cv2')
    folder = tmp_path_factory.mktemp('folded')
    for split in ('train', 'val'):
        for i in range(10):
            target = folder / f'data/{split}/{i}/a.png'
            target.parent.mkdir(parents=True)
            cv2.imwrite(str(target), np.random.default_rng(i).integers(0, 256, (48, 48, 3), dtype=np.uint8))
    torch.manual_seed(0)
    model, _ = load_trained(Config.fromfile(CONFIG), None)
    for name, p in model.named_parameters():
        if name.endswith('gain'):  # which folding takes into the weights
            torch.nn.init.normal_(p, 1.0, 0.3)
    torch.nn.init.normal_(model.head.fc.weight)
    torch.save(dict(state_dict=model.state_dict(), meta={}), folder / 'whole.pth')
    save_folded(model, folder / 'folded.pth')
    loaders = [f'{name}_dataloader.num_workers=0' for name in ('train', 'val', 'test')]
    workers = [f'{name}_dataloader.persistent_workers=False' for name in ('train', 'val', 'test')]
    return folder, ['--cfg-options', f'data_root={folder / "data"}', *loaders, *workers]


@pytest.mark.parametrize(
    'more, error',
    [
        ((), 1e-5),
        pytest.param(('--tta',), 1e-5, marks=pytest.mark.slow),
        pytest.param(('--amp',), 0.06, marks=pytest.mark.slow),  # 8 bits
    ],
)
def test_a_folded_checkpoint_scores_as_the_whole_one(files, run_tool, tmp_path, more, error):
    folder, options = files
    scores = []
    for i, (name, how) in enumerate([('whole', ['--no-fold']), ('whole', []), ('folded', [])]):
        out = tmp_path / f'{i}.pkl'
        words = folder / f'{name}.pth', '--work-dir', tmp_path / 'run', '--out', out, *how, *more
        code, said = run_tool('test', CONFIG, *words, *options)
        assert code == 0, said[-2000:]
        scores.append(torch.stack([one['pred_score'] for one in load(out)]).float())
    assert len(scores[0]) == 10 and float(scores[0].std(0).max()) > 1e-2  # of each picture others
    for one in scores[1:]:
        torch.testing.assert_close(one, scores[0], rtol=0, atol=error)


@pytest.mark.parametrize(
    'command, words',
    [
        ('train', ['load_from={}']),
        ('train', ['model.backbone.init_cfg.type=nfnet_mm.NFPretrained', 'model.backbone.init_cfg.checkpoint={}']),
        ('train', ['--resume', '{}']),
        ('test', ['{}', '--no-fold']),
    ],
)
def test_it_is_not_loaded_where_weights_are_standardised(files, run_tool, tmp_path, command, words):
    folder, options = files
    words = [word.format(folder / 'folded.pth') for word in words]
    settings = [word for word in words if '=' in word]
    words = [word for word in words if word not in settings]
    code, said = run_tool(command, CONFIG, *words, '--work-dir', tmp_path / 'run', *options, *settings)
    assert code == 2, said[-2000:]
    assert 'it is folded: its weights are standardised already' in said.splitlines()[-1]
