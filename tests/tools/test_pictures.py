"""``test --show-dir`` in all frameworks: every picture, in the folder named, and the log says where."""

from pathlib import Path

import mmengine.visualization
import numpy as np
import pytest
import torch
from PIL import Image

from nfnet_mm import run
from nfnet_mm.errors import UserError

ROOT = Path(__file__).parents[2]
VAL = 3
NAMES = dict(
    classification=['0/same.png', '5/same.png', '8/same.png'],  # a folder for each class
    depth=[f'room_000{i}.jpg' for i in (1, 2, 3)],
)


def checkpoint_of(cfg, path):
    from mmengine.registry import MODELS, init_default_scope

    init_default_scope(cfg.default_scope)
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    model.init_weights()
    torch.save(dict(state_dict=model.state_dict()), path)


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in Path(folder).rglob('*') if path.is_file())


@pytest.mark.parametrize(
    'task,needs',
    [('detection', 'mmdet'), ('classification', 'mmpretrain'), ('segmentation', 'mmseg'), ('depth', 'mmseg')],
)
def test_every_picture_is_drawn_into_the_folder(run_tool, tmp_path, monkeypatch, task, needs):
    pytest.importorskip(needs)
    from demo.tasks import TASKS

    demo, config = TASKS[task], ROOT / 'demo/configs' / TASKS[task].config
    demo.generate(tmp_path / 'data', 1, VAL)
    if task == 'classification':  # the same name in several folders
        for path in list((tmp_path / 'data/val').rglob('*.png')):
            path.rename(path.with_name('same.png'))
    cfg = run.load_config(str(config))
    checkpoint_of(cfg, tmp_path / 'x.pth')
    run.use_data_root(cfg, str(tmp_path / 'data'))
    cfg.dump(tmp_path / 'config.py')
    monkeypatch.chdir(tmp_path)
    code, errors = run_tool('test', 'config.py', 'x.pth', '--work-dir', 'work', '--show-dir', 'pictures')
    assert code == 0, errors
    drawn = files('pictures')
    assert drawn == NAMES.get(task, [f'00000{i}.png' for i in (1, 2, 3)])
    assert all(np.ptp(np.asarray(Image.open(tmp_path / 'pictures' / name))) > 50 for name in drawn)
    log = next((tmp_path / 'work').rglob('*.log')).read_text()
    assert f'{VAL} pictures written to {tmp_path / "pictures"}\n' in log
    assert not [path for path in files('work') if path.endswith(('.png', '.jpg'))]


class Visualizer:
    def add_datasample(self, name, image, data_sample=None, out_file=None):
        """As one that draws."""


class Runner:
    cfg: dict = {}
    world_size = 1
    visualizer: object = Visualizer()


@pytest.mark.parametrize(
    'given,changed,message',
    [
        (dict(directory='d', interval=0), {}, '--interval=0 must be a positive integer'),
        (dict(show=True, wait_time=-1.0), {}, '--wait-time=-1.0 must be a number in [0, inf), in seconds'),
        (dict(directory='d'), dict(world_size=2), '--show-dir: pictures are drawn in one process, here are 2: use'),
        (dict(show=True), {}, '--show needs a display, and there is none: --show-dir FOLDER writes the pictures'),
        (dict(directory='file/d'), {}, "--show-dir 'file/d': Not a directory"),
        (
            dict(directory='d'),
            dict(visualizer=mmengine.visualization.Visualizer()),
            "--show-dir: visualizer.type 'Visualizer' draws no predictions: set it to mmdet.DetLocalVisualizer, ",
        ),
    ],
)
def test_what_cannot_be_shown_is_refused(tmp_path, monkeypatch, given, changed, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv('DISPLAY', raising=False)
    monkeypatch.delenv('WAYLAND_DISPLAY', raising=False)
    (tmp_path / 'file').touch()
    runner = Runner()
    vars(runner).update(changed)
    with pytest.raises(UserError) as error:
        run.show_predictions(runner, **given)
    assert str(error.value).startswith(message)


def test_pictures_of_the_data_are_not_drawn_over(tmp_path):
    from mmengine.structures import BaseDataElement

    path = tmp_path / 'a.png'
    Image.new('RGB', (8, 8)).save(path)
    before = path.read_bytes()
    hook = run.pictures.PredictionPictures(str(tmp_path), 1, {}, {})
    hook.root = str(tmp_path)
    runner = Runner()
    with pytest.raises(UserError, match="--show-dir '.*' is where the pictures of the data are: name another"):
        hook.after_test_iter(runner, 0, outputs=[BaseDataElement(metainfo=dict(img_path=str(path)))])
    assert path.read_bytes() == before
