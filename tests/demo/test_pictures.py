import numpy as np
import pytest
from PIL import Image

from nfnet_mm.demo.pictures import draw_curves, draw_prediction, read_scalars

pytest.importorskip('matplotlib')


def test_read_scalars(tmp_path):
    file = tmp_path / 'scalars.json'
    rows = '{"loss": 2.0, "step": 5, "note": "x"}', '{"loss": 1.0, "step": 10}', '{"coco/bbox_mAP": 0.5, "step": 10}'
    file.write_text('\n'.join(rows))
    curves = read_scalars(file)
    assert curves['loss'] == ([5, 10], [2.0, 1.0]) and curves['coco/bbox_mAP'] == ([10], [0.5])
    assert 'note' not in curves
    file.write_text('{"loss": 2.0, "st')
    with pytest.raises(ValueError, match='line 1'):
        read_scalars(file)
    file.write_text('')
    with pytest.raises(ValueError, match='no scalars'):
        read_scalars(file)


def test_draws_masks_and_boxes_in_the_label_s_colour(tmp_path):
    mask = np.zeros((1, 64, 64), bool)
    mask[:, 20:40, 20:40] = True
    truth = dict(boxes=np.array([[20., 20, 40, 40]]), labels=np.array([3]), masks=mask)
    nothing = dict(boxes=np.zeros((0, 4)), labels=np.zeros(0, int), masks=np.zeros((0, 64, 64), bool),
                   scores=np.zeros(0))
    draw_prediction(tmp_path / 'p.png', np.zeros((64, 64, 3), np.uint8), dict(truth=truth, predictions=nothing),
                    names='0123456789')
    drawn = np.asarray(Image.open(tmp_path / 'p.png').convert('RGB')).astype(int)
    left, right = np.array_split(drawn, 2, axis=1)
    red = [(side[..., 0] - side[..., 2] > 40).mean() for side in (left, right)]  # tab10's colour 3 is a red
    assert red[0] > 0.05 and red[1] < 0.001


def test_curves_skip_what_is_missing(tmp_path):
    draw_curves(tmp_path / 'c.png', dict(loss=([1, 2], [2., 1.])), dict(losses=('loss', 'absent'), AGC=('absent', )))
    assert Image.open(tmp_path / 'c.png').size[0] > 400
