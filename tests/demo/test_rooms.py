import hashlib

import numpy as np
import pytest
from PIL import Image

from demo import rooms
from demo.rooms import CHECKS, PLAIN, Ball, Box, Camera, Pattern, Room, RoomsSpec, generate, render, sample_room

pytest.importorskip('mmseg')
SMALL = RoomsSpec(train=5, val=3, width=32, height=24)
GREY = Pattern((np.full(3, 0.5), np.zeros(3)), PLAIN)
HALL = Box((0, 0, 0), (40, 40, 40), (GREY,), inside=True)  # far away on every side


def depth(solids, camera):
    return render(Room((HALL, *solids), (0, 30, 0)), camera)[1]


def digest(root):
    files = sorted(path for path in root.rglob('*') if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize(
    'yaw, position', [(0, (0, 0, 37)), (np.pi / 2, (37, 0, 0)), (np.pi, (0, 0, -37)), (-np.pi / 2, (-37, 0, 0))]
)
def test_a_wall_3_metres_ahead_is_3_metres_deep_everywhere(yaw, position):
    np.testing.assert_allclose(depth((), Camera(position, yaw)), 3, atol=1e-12)


def test_floor_depth_is_height_over_the_tangent():
    height, pitch, focal = 1.5, 0.3, 104.0
    room = Room((Box((0, 38.5, 0), (40, 40, 40), (GREY,), inside=True),), (0, 30, 0))  # its floor is 1.5 m below
    below = np.arctan((np.arange(96) + 0.5 - 48) / focal)  # each row's angle under the optical axis
    level = render(room, Camera((0, 0, 0), focal=focal))[1]
    np.testing.assert_allclose(level[60:], np.tile((height / np.tan(below[60:]))[:, None], 128))
    # pitched: along the ray height / sin(angle under the horizon), of which cos(angle off the axis) lies along the axis
    pitched = render(room, Camera((0, 0, 0), pitch=pitch, focal=focal))[1]
    np.testing.assert_allclose(pitched[48:, 64], height / np.sin(pitch + below[48:]) * np.cos(below[48:]))


def test_nearest_point_of_a_ball():
    axis = (10, 16)  # (row, column) of the optical axis at odd sizes
    eye = Camera((1, 2, 3), width=33, height=21, focal=30.0)
    seen = depth([Ball((1, 2, 8), 1.5, GREY)], eye)
    assert seen.min() == seen[axis] == pytest.approx(5 - 1.5)
    # the silhouette's half angle is asin(radius / distance)
    columns = np.flatnonzero(seen[10] < 30)
    assert np.abs(columns - 16).max() == int(30 * np.tan(np.arcsin(1.5 / 5)))
    turned = Camera((1, 2, 3), yaw=0.4, pitch=0.2, width=33, height=21, focal=30.0)
    ahead = np.array([np.cos(0.2) * np.sin(0.4), -np.sin(0.2), np.cos(0.2) * np.cos(0.4)])
    assert depth([Ball(np.array([1, 2, 3]) + 5 * ahead, 1.5, GREY)], turned)[axis] == pytest.approx(3.5)


def test_a_turned_box_shows_its_edge():
    camera = Camera((0, 0, 0), width=33, height=21, focal=30.0)
    assert depth([Box((0, 0, 6), (1, 1, 1), (GREY,))], camera)[10, 16] == pytest.approx(5)
    seen = depth([Box((0, 0, 6), (1, 1, 1), (GREY,), np.pi / 4)], camera)
    assert seen[10, 16] == pytest.approx(6 - 2**0.5)
    # a face at 45 degrees: x = z - (6 - sqrt 2), and x / z = columns off the axis / focal
    assert seen[10, 20] == pytest.approx((6 - 2**0.5) / (1 - 4 / 30))


def test_positive_yaw_looks_right_and_positive_pitch_down():
    right, below = Ball((3, 0, 5), 1, GREY), Ball((0, -3, 5), 1, GREY)
    rows, columns = np.nonzero(depth([right], Camera((0, 0, 0))) < 20)
    assert columns.min() > 64 and rows.min() < 48 < rows.max()
    rows, columns = np.nonzero(depth([below], Camera((0, 0, 0))) < 20)
    assert rows.min() > 48 and columns.min() < 64 < columns.max()
    odd = dict(width=33, height=21, focal=30.0)
    assert depth([right], Camera((0, 0, 0), yaw=np.arctan2(3, 5), **odd))[10, 16] == pytest.approx(34**0.5 - 1)
    assert depth([below], Camera((0, 0, 0), pitch=np.arctan2(3, 5), **odd))[10, 16] == pytest.approx(34**0.5 - 1)


def test_lamp_light_falls_off_and_casts_shadows():
    camera = Camera((0, 0, 34), width=33, height=21, focal=30.0)
    lamp, wall = (0, 3, 36), (0, 0, 40)
    light = render(Room((HALL,), lamp, ambient=0.2), camera)[0][10, 16]
    distance = 5  # of (0, 0, 40) from (0, 3, 36), whose cosine to the wall's normal is 4 / 5
    np.testing.assert_allclose(light, 0.5 * (0.2 + 0.8 * 1.5 * 0.8 / (1 + (distance / 3) ** 2)))
    between = Ball((0, 1.5, 38), 0.3, GREY)
    light, seen = render(Room((HALL, between), lamp, ambient=0.2), camera)
    assert seen[10, 16] == pytest.approx(wall[2] - 34)
    np.testing.assert_allclose(light[10, 16], 0.5 * 0.2)


def test_patterns_repeat_by_the_metre_and_each_face_has_its_own():
    tiles = Pattern((np.ones(3), np.zeros(3)), CHECKS, 2.0)
    assert tiles(np.array([0.5, 1.5, 2.5, -0.5]), np.array([0.5, 0.5, 0.5, 0.5]))[0].tolist() == [1, 0, 1, 0]
    plain = [Pattern((np.full(3, i / 10), np.zeros(3)), PLAIN) for i in range(6)]
    box = Box((5, 5, 5), (1, 2, 3), plain)
    centres = np.array([[4, 6, 5, 5, 5, 5], [5, 5, 3, 7, 5, 5], [5, 5, 5, 5, 2, 8]], float)
    normals, colours = box.surface(centres)
    np.testing.assert_allclose(colours[0], np.arange(6) / 10)
    np.testing.assert_array_equal(normals.T, np.kron(np.eye(3), [[-1], [1]]))


def inside(room, points):
    """Which (3, N) points lie in a ball, in a box or outside the room."""
    walls, *things = room.solids
    found = (np.abs(points - np.array(walls.centre)[:, None]) > np.array(walls.half)[:, None]).any(0)
    for thing in things:
        x, y, z = points - np.asarray(thing.centre)[:, None]
        if isinstance(thing, Ball):
            found |= x**2 + y**2 + z**2 < thing.radius**2
        else:
            own = np.exp(1j * thing.yaw) * (x + 1j * z)  # along the box's sides
            found |= (np.abs([own.real, y, own.imag]) < np.asarray(thing.half)[:, None]).all(0)
    return found


def test_rays_are_in_free_air_up_to_their_depth_and_not_past_it():
    rng, met = np.random.default_rng(5), set()
    for _ in range(12):
        room, camera = sample_room(rng, np.ones((1, 8, 8)))
        rays = camera.rays().reshape(3, -1)
        depths, solids = room.cast(camera.position, rays)
        for pixel in rng.integers(rays.shape[1], size=60):
            places = np.linspace(0, depths[pixel] - 1e-6, 400), [depths[pixel] + 1e-6]
            before, after = (inside(room, camera.position[:, None] + rays[:, [pixel]] * place) for place in places)
            assert not before.any() and after.all()
        met |= {type(room.solids[i]) if i else None for i in solids}
    assert met == {None, Box, Ball}


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    return generate(tmp_path_factory.mktemp('rooms') / 'data', SMALL)


def test_files_hold_what_was_cast_in_millimetres(root):
    from mmseg.datasets import NYUDataset
    from mmseg.datasets.transforms import LoadDepthAnnotation

    data = NYUDataset(data_root=str(root), data_prefix=dict(img_path='images/test', depth_map_path='annotations/test'))
    assert len(data) == 3
    for number in range(3):
        found = LoadDepthAnnotation(depth_rescale_factor=1e-3)(data.get_data_info(number))['gt_depth_map']
        rng = np.random.default_rng((0, 1, number + 1))
        expected = render(*sample_room(rng, np.zeros((359, 8, 8)), 32, 24))[1]  # other ink moves no wall
        np.testing.assert_allclose(found, expected, atol=0.00051)
        picture = Image.open(data.get_data_info(number)['img_path'])
        assert picture.size == (32, 24) and np.asarray(picture).std() > 5


def test_same_seed_same_bytes_and_more_pictures_leave_the_first(root, tmp_path):
    assert digest(generate(tmp_path / 'again', SMALL)) == digest(root)
    first = digest(root)
    more = digest(generate(tmp_path / 'more', RoomsSpec(train=6, val=3, width=32, height=24)))
    assert {name: more[name] for name in first if name != 'rooms.json'} == {
        name: value for name, value in first.items() if name != 'rooms.json'
    }
    other = generate(tmp_path / 'other', RoomsSpec(train=5, val=3, width=32, height=24, seed=1))
    assert not set(digest(other).values()) & set(first.values())


def test_no_room_and_no_wallpaper_of_training_is_validated(root, tmp_path, monkeypatch):
    drawn = {}

    def listen(rng, scans, *size):
        room, camera = sample_room(rng, scans, *size)
        drawn.setdefault(len(scans), []).append((room, {scan.tobytes() for scan in scans}))
        return room, camera

    monkeypatch.setattr(rooms, 'sample_room', listen)
    generate(tmp_path / 'rooms', RoomsSpec(train=40, val=20, width=16, height=12))
    (train, train_scans), (val, val_scans) = (
        ([tuple(room.solids[0].half) for room, _ in part], part[0][1])
        for _, part in sorted(drawn.items(), reverse=True)
    )
    assert len(set(train)) == 40 and len(set(val)) == 20 and not set(train) & set(val)
    assert len(train_scans) == 1438 and len(val_scans) == 359 and not train_scans & val_scans
    assert len(set(digest(root).values())) == 2 * 8 + 1  # no picture and no depth map twice


def test_an_interrupted_run_leaves_nothing_and_foreign_folders_stay(tmp_path, monkeypatch):
    drawn = []

    def stop_at_third(*args):
        drawn.append(args)
        if len(drawn) == 3:
            raise KeyboardInterrupt
        return sample_room(*args)

    monkeypatch.setattr(rooms, 'sample_room', stop_at_third)
    with pytest.raises(KeyboardInterrupt):
        generate(tmp_path / 'rooms', SMALL)
    assert not list(tmp_path.iterdir())
    (tmp_path / 'thesis.txt').write_text('years of work')
    with pytest.raises(FileExistsError, match='holds no rooms.json'):
        generate(tmp_path, SMALL)


@pytest.mark.parametrize('wrong', [dict(train=0), dict(val=-1), dict(width=7), dict(height=0)])
def test_wrong_sizes(wrong):
    with pytest.raises(ValueError, match='got RoomsSpec'):
        RoomsSpec(**wrong)
