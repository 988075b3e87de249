"""Pictures of rooms with exact depth, from a small ray caster: NYU's layout in half a minute, without a download.

A room is a box seen from inside, with boxes and balls on its floor, papered, tiled and painted, and lit by one lamp.
Each picture is of a room of its own. The wallpapers show scikit-learn's ``load_digits`` (see :mod:`.digits`), and no
scan that appears in a training room appears in a validation room. Lengths are in metres, colours reflected fractions
of light from 0 to 1; x points right, y up and z ahead, vectors lie along the first axis.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .digits import load_scans
from .folders import write_once

MANIFEST = 'rooms.json'
Vector = Sequence[float] | np.ndarray  # (3,)
CHECKS, STRIPES, PLAIN = np.array([[0.0, 1], [1, 0]]), np.array([[0.0, 1]]), np.zeros((1, 1))


@dataclass(frozen=True)
class RoomsSpec:
    """What a generated dataset holds; two equal specs give the same bytes.

    Sizes are in pixels. ``version`` grows when the pictures drawn from the same numbers change.
    """

    train: int = 1500
    val: int = 200
    width: int = 128
    height: int = 96
    seed: int = 0
    version: int = 1

    def __post_init__(self) -> None:
        if min(self.train, self.val) < 1:
            raise ValueError(f'train and val must be at least 1, got {self}')
        if min(self.width, self.height) < 8:
            raise ValueError(f'width and height must be at least 8, got {self}')


@dataclass(frozen=True)
class Camera:
    """A pinhole camera. ``yaw`` turns it right, ``pitch`` down (radians); ``focal`` is in pixels."""

    position: Vector
    yaw: float = 0.0
    pitch: float = 0.0
    width: int = 128
    height: int = 96
    focal: float = 104.0

    def rays(self) -> np.ndarray:
        """(3, height, width) directions through the pixels' centres, as long as 1 along the optical axis.

        So a ray's parameter where it hits is the depth there, and not the distance.
        """
        columns, rows = np.arange(self.width) + 0.5, np.arange(self.height) + 0.5
        right, down = np.meshgrid((columns - self.width / 2) / self.focal, (rows - self.height / 2) / self.focal)
        sin, cos = np.sin(self.pitch), np.cos(self.pitch)
        return _turn(np.stack([right, -sin - cos * down, cos - sin * down]), self.yaw)


@dataclass(frozen=True)
class Pattern:
    """Two (3,) colours, mixed by the values 0-1 of ``ink`` (n, m), which repeats every ``period`` metres."""

    colours: Sequence[np.ndarray]
    ink: np.ndarray
    period: float = 1.0

    def __call__(self, u: np.ndarray, v: np.ndarray) -> np.ndarray:
        """(3, N) colours at (N,) places ``u`` to the right and ``v`` down."""
        rows, columns = self.ink.shape
        row, column = (np.floor(x / self.period * n).astype(int) % n for x, n in ((v, rows), (u, columns)))
        paper, paint = (np.asarray(colour, float)[:, None] for colour in self.colours)
        return paper + (paint - paper) * self.ink[row, column]


@dataclass(frozen=True)
class Box:
    """A box, turned right by ``yaw`` about its upright axis; ``inside``: seen from within, as a room is.

    ``patterns`` is one for all six faces, or one each for those at -x, +x, -y, +y, -z, +z.
    """

    centre: Vector
    half: Vector
    patterns: Sequence[Pattern]
    yaw: float = 0.0
    inside: bool = False

    def hit(self, origin: Vector, rays: np.ndarray) -> np.ndarray:
        """Where rays enter the box (or, ``inside``, leave it), as multiples of them; inf where they do not."""
        start, rays = _turn(np.subtract(origin, self.centre), -self.yaw), _turn(rays, -self.yaw)
        with np.errstate(divide='ignore'):
            low, high = (_column(face - start, rays) / rays for face in (-np.asarray(self.half), np.asarray(self.half)))
        far = np.maximum(low, high).min(0)
        if self.inside:
            return far
        near = np.minimum(low, high).max(0)
        return np.where((near <= far) & (near > 0), near, np.inf)

    def surface(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(3, N) normals and colours of the (3, N) points on the box."""
        local = _turn(points - _column(self.centre, points), -self.yaw)
        sides = local / _column(self.half, points)
        axis, nth = np.abs(sides).argmax(0), np.arange(points.shape[1])
        up = sides[axis, nth] > 0
        normals = np.zeros_like(points)
        normals[axis, nth] = np.where(up != self.inside, 1.0, -1.0)
        colours = np.empty_like(points)
        for face in np.unique(2 * axis + up):
            on = 2 * axis + up == face
            u, v = {0: (2, 1), 1: (0, 2), 2: (0, 1)}[face // 2]
            colours[:, on] = self.patterns[face % len(self.patterns)](local[u, on], -local[v, on])
        return _turn(normals, self.yaw), colours


@dataclass(frozen=True)
class Ball:
    """A ball whose pattern goes straight through it, along z."""

    centre: Vector
    radius: float
    pattern: Pattern

    def hit(self, origin: Vector, rays: np.ndarray) -> np.ndarray:
        """Where rays enter the ball, as multiples of them; inf where they miss it."""
        start = np.subtract(origin, self.centre)
        a, b = (rays * rays).sum(0), np.tensordot(start, rays, 1)
        root = b * b - a * (start @ start - self.radius**2)
        near = (-b - np.sqrt(np.maximum(root, 0))) / a
        return np.where((root >= 0) & (near > 0), near, np.inf)

    def surface(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(3, N) normals and colours of the (3, N) points on the ball."""
        local = points - _column(self.centre, points)
        return local / self.radius, self.pattern(local[0], -local[1])


@dataclass(frozen=True)
class Room:
    """``solids``, the first of them the walls, and a ``lamp`` at (x, y, z); ``ambient`` is the light without it."""

    solids: tuple
    lamp: Vector
    ambient: float = 0.3

    def cast(self, origin: Vector, rays: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The first hits of (3, ...) rays: their parameters, and the indices of the solids that are hit."""
        hits = np.stack([solid.hit(origin, rays) for solid in self.solids])
        return hits.min(0), hits.argmin(0)


def _turn(vectors: np.ndarray, yaw: float) -> np.ndarray:
    """(3, ...) vectors turned right about the upright axis."""
    if not yaw:
        return vectors
    x, y, z = vectors
    sin, cos = np.sin(yaw), np.cos(yaw)
    return np.stack([cos * x + sin * z, y, cos * z - sin * x])


def _column(vector: Vector, like: np.ndarray) -> np.ndarray:
    return np.asarray(vector, float).reshape(3, *[1] * (like.ndim - 1))


def render(room: Room, camera: Camera) -> tuple[np.ndarray, np.ndarray]:
    """What a camera sees of a room.

    Returns: (height, width, 3) light in RGB from 0 to about 1, with the lamp's shadows; and (height, width) depth along
    the optical axis.
    """
    rays = camera.rays()
    depth, seen = room.cast(camera.position, rays)
    points = (_column(camera.position, rays) + depth * rays).reshape(3, -1)
    colours, normals = np.empty_like(points), np.empty_like(points)
    for index, solid in enumerate(room.solids):
        on = seen.ravel() == index
        if on.any():
            normals[:, on], colours[:, on] = solid.surface(points[:, on])
    from_lamp = points - _column(room.lamp, points)
    distance = np.sqrt((from_lamp**2).sum(0))
    direct = np.maximum(-(normals * from_lamp).sum(0) / distance, 0) / (1 + (distance / 3) ** 2)
    direct[room.cast(room.lamp, from_lamp)[0] < 1 - 1e-6] = 0  # something is in between
    light = colours * (room.ambient + (1 - room.ambient) * 1.5 * direct)
    return light.T.reshape(*depth.shape, 3), depth


def _pattern(
    rng: np.random.Generator,
    bright: tuple[float, float],
    saturation: tuple[float, float],
    ink: np.ndarray = PLAIN,
    period: float = 1.0,
) -> Pattern:
    """A colour of any hue, and the same darker."""
    hue = np.abs((rng.random() + np.array([0, 1, 2]) / 3) % 1 * 6 - 3) - 1  # of red, green and blue, before clipping
    paper = rng.uniform(*bright) * (1 - rng.uniform(*saturation) * (1 - np.clip(hue, 0, 1)))
    return Pattern((paper, paper * rng.uniform(0.4, 0.75)), ink, period)


def sample_room(rng: np.random.Generator, scans: np.ndarray, width: int = 128, height: int = 96) -> tuple[Room, Camera]:
    """Draw a room and a camera in it, which looks across it from the height of the eyes, a little down.

    Rooms are 3-5.5 m long and wide and 2.4-2.8 m high, with up to three things before the camera, whose angles of
    view are those of NYU's. Tiles and wallpapers have one size everywhere, so that a picture tells its scale.

    Args:
        rng: every choice comes from it.
        scans: (N, n, n) ink from 0 to 1 for the wallpapers.
        width, height: of the camera's pictures, in pixels.
    """
    wide, tall, deep = rng.uniform(3.0, 5.5), rng.uniform(2.4, 2.8), rng.uniform(3.0, 5.5)
    paper = [_pattern(rng, (0.6, 0.9), (0, 0.4), scans[rng.integers(len(scans))], 0.55) for _ in range(2)]
    floor = _pattern(rng, (0.3, 0.6), (0, 0.4), CHECKS if rng.random() < 0.5 else STRIPES, 0.75)
    ceiling = _pattern(rng, (0.9, 1), (0, 0.1))
    middle, faces = (wide / 2, tall / 2, deep / 2), (paper[0], paper[0], floor, ceiling, paper[1], paper[1])
    solids: list[Box | Ball] = [Box(middle, middle, faces, inside=True)]
    place = np.array([rng.uniform(0.6, wide - 0.6), rng.uniform(1.4, 1.6), rng.uniform(0.6, deep - 0.6)])
    # towards a point in the half of the room that the camera is not in
    ahead = [
        (rng.uniform(0.5, 1) if at < size / 2 else rng.uniform(0, 0.5)) * size - at
        for at, size in ((place[0], wide), (place[2], deep))
    ]
    camera = Camera(place, float(np.arctan2(*ahead)), rng.uniform(0.1, 0.35), width, height, 0.81 * width)
    for _ in range(rng.integers(1, 4)):
        away, aside = rng.uniform(1.5, 4), rng.uniform(-0.5, 0.5)
        x, z = place[0] + away * np.sin(camera.yaw + aside), place[2] + away * np.cos(camera.yaw + aside)
        if not (0 < x < wide and 0 < z < deep):
            continue
        if rng.random() < 0.5:
            half = rng.uniform((0.25, 0.25, 0.25), (0.5, 0.8, 0.5))
            solids.append(Box((x, half[1], z), half, (_pattern(rng, (0.6, 1), (0.6, 1)),), rng.uniform(0, np.pi)))
        else:
            radius = rng.uniform(0.25, 0.5)
            solids.append(Ball((x, radius, z), radius, _pattern(rng, (0.6, 1), (0.6, 1), STRIPES, 0.3)))
    lamp = rng.uniform((0.2 * wide, tall - 0.5, 0.2 * deep), (0.8 * wide, tall - 0.1, 0.8 * deep))
    return Room(tuple(solids), lamp, rng.uniform(0.2, 0.5)), camera


def generate(root: str | Path, spec: RoomsSpec = RoomsSpec()) -> Path:
    """Write the dataset, as :func:`~.folders.write_once` does.

    It is what mmseg's ``NYUDataset`` reads: ``images/{train,test}/room_NNNN.jpg``,
    ``annotations/{train,test}/room_NNNN.png`` (16 bits, millimetres); and ``rooms.json`` (the spec).

    Raises:
        FileExistsError: ``root`` holds something that this function did not write.
        ImportError: scikit-learn or mmseg is not installed.
    """

    def fill(folder: Path) -> None:
        from mmengine.utils import track_iter_progress
        from PIL import Image

        from nfnet_mm.tasks.depth.prepare import depth_to_millimetres

        scans, _, *rows = load_scans(np.random.default_rng(spec.seed))
        ink = np.pad(scans / 16, ((0, 0), (1, 1), (1, 1)))
        for split, (name, count) in enumerate((('train', spec.train), ('test', spec.val))):
            images, annotations = folder / 'images' / name, folder / 'annotations' / name
            images.mkdir(parents=True)
            annotations.mkdir(parents=True)
            for number in track_iter_progress(range(1, count + 1)):
                # a stream for each picture: more pictures leave the first ones as they are
                rng = np.random.default_rng((spec.seed, split, number))
                light, depth = render(*sample_room(rng, ink[rows[split]], spec.width, spec.height))
                picture = 255 * np.clip(light * rng.uniform(0.8, 1.2), 0, 1) ** (1 / 2.2)  # a screen's gamma
                picture += rng.normal(0, 4, light.shape)  # a sensor's noise
                picture = picture.round().clip(0, 255).astype(np.uint8)
                Image.fromarray(picture).save(images / f'room_{number:04d}.jpg', quality=95, subsampling=0)
                Image.fromarray(depth_to_millimetres(depth)).save(annotations / f'room_{number:04d}.png')

    return write_once(root, spec, MANIFEST, fill)
