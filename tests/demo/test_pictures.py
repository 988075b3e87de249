import numpy as np
import pytest
from PIL import Image

from demo.pictures import draw_contact_sheet, draw_curves, draw_depths, draw_label_maps, draw_prediction
from nfnet_mm.inference.page import read_scalars

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
    truth = dict(boxes=np.array([[20.0, 20, 40, 40]]), labels=np.array([3]), masks=mask)
    nothing = dict(
        boxes=np.zeros((0, 4)), labels=np.zeros(0, int), masks=np.zeros((0, 64, 64), bool), scores=np.zeros(0)
    )
    draw_prediction(
        tmp_path / 'p.png', np.zeros((64, 64, 3), np.uint8), dict(truth=truth, predictions=nothing), names='0123456789'
    )
    drawn = np.asarray(Image.open(tmp_path / 'p.png').convert('RGB')).astype(int)
    left, right = np.array_split(drawn, 2, axis=1)
    red = [(side[..., 0] - side[..., 2] > 40).mean() for side in (left, right)]  # tab10's colour 3 is a red
    assert red[0] > 0.05 and red[1] < 0.001


def pixels(path):
    return np.asarray(Image.open(path).convert('RGB')).astype(int)


def share(drawn, colour):
    """The share of the pixels that have this colour."""
    return (np.abs(drawn - np.array(colour)).max(-1) < 3).mean()


def test_contact_sheet_frames_mistakes_in_red(tmp_path):
    blue = np.full((32, 32, 3), (0, 0, 255), np.uint8)
    draw_contact_sheet(tmp_path / 's.png', [blue] * 3, [3, 3, 5], [3, 4, 5], [0.9, 0.8, 0.7], '0123456789', columns=2)
    drawn = pixels(tmp_path / 's.png')
    rows, columns = drawn.shape[0] // 2, drawn.shape[1] // 2
    cells = drawn[:rows, :columns], drawn[:rows, columns:], drawn[rows:, :columns], drawn[rows:, columns:]
    green, red = ([share(cell, colour) for cell in cells] for colour in ((0, 128, 0), (255, 0, 0)))
    assert min(green[0], red[1], green[2]) > 0.01 and max(red[0], green[1], red[2], green[3], red[3]) == 0
    assert [share(cell, (0, 0, 255)) > 0.3 for cell in cells] == [True, True, True, False]


def test_label_maps_show_what_each_panel_says(tmp_path):
    truth, found = np.zeros((2, 40, 40), np.uint8)
    truth[:10], found[:20], truth[30:] = 4, 4, 255
    found[30:] = 9
    draw_label_maps(
        tmp_path / 'm.png',
        np.full((40, 40, 3), 77, np.uint8),
        dict(truth=truth, prediction=found),
        ['background', *'0123456789'],
    )
    panels = np.array_split(pixels(tmp_path / 'm.png')[:300], 3, axis=1)  # without the legend
    red, olive = (214, 39, 40), (188, 189, 34)  # tab10's fourth and ninth
    size = share(panels[0], (77, 77, 77))
    assert size > 0.5
    expected = {red: (0, 0.25, 0.5), olive: (0, 0, 0.25), (0, 0, 0): (0, 0.5, 0.25)}
    for colour, shares in expected.items():
        np.testing.assert_allclose([share(panel, colour) / size for panel in panels], shares, atol=0.03)


def test_depths_share_the_truth_s_colour_scale(tmp_path):
    truth, found = np.full((40, 40), 2.0), np.full((40, 40), 6.0)
    truth[:10], found[:20], found[30:] = 4, 2, 4
    draw_depths(tmp_path / 'd.png', np.full((40, 40, 3), 77, np.uint8), dict(truth=truth, prediction=found))
    drawn = pixels(tmp_path / 'd.png')
    panels = [drawn[:, left:right] for left, right in ((0, 330), (330, 660), (660, 990))]  # without the colour bar
    size, near, far = share(panels[0], (77, 77, 77)), (68, 1, 84), (253, 231, 37)  # viridis' ends
    assert size > 0.5
    for colour, shares in ((near, (0, 0.75, 0.5)), (far, (0, 0.25, 0.5))):
        np.testing.assert_allclose([share(panel, colour) / size for panel in panels], shares, atol=0.03)


def test_curves_skip_what_is_missing(tmp_path):
    draw_curves(tmp_path / 'c.png', dict(loss=([1, 2], [2.0, 1.0])), dict(losses=('loss', 'absent'), AGC=('absent',)))
    assert Image.open(tmp_path / 'c.png').size[0] > 400
