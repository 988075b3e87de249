"""Arrays as PNG files, and pictures of what the frameworks' visualizers do not draw."""

import io
from collections.abc import Sequence

import numpy as np


def png(array: np.ndarray) -> bytes:
    """A PNG file: uint8 or uint16, (H, W) or (H, W, 3) in OpenCV's order of channels."""
    import cv2

    return cv2.imencode('.png', np.ascontiguousarray(array))[1].tobytes()


def palette_png(labels: np.ndarray, palette: Sequence[Sequence[int]]) -> bytes:
    """A PNG file whose pixels are the labels, (H, W), and which viewers show in the palette's RGB colours.

    Of more than 256 labels it is one of 16 bits, without colours.
    """
    from PIL import Image

    if labels.max() > 255:
        return png(labels.astype(np.uint16))
    image = Image.fromarray(labels.astype(np.uint8))
    image.putpalette(np.asarray(palette, np.uint8)[:256].tobytes())  # turns it into one of mode P
    file = io.BytesIO()
    image.save(file, format='png')
    return file.getvalue()


def write_line(picture: np.ndarray, line: str) -> np.ndarray:
    """A line of text above an (H, W, 3) picture, no wider than it; a small picture is enlarged, to be read."""
    import cv2

    picture, font = _enlarged(picture, 240), cv2.FONT_HERSHEY_SIMPLEX
    width = picture.shape[1]
    size = max(0.6, width / 600)
    size *= min(1.0, (width - 10) / max(cv2.getTextSize(line, font, size, 1)[0][0], 1))
    height = int(40 * max(0.6, width / 600))
    band = np.zeros((height, width, 3), np.uint8)
    cv2.putText(band, line, (5, int(0.72 * height)), font, size, (255, 255, 255), max(1, int(2 * size)), cv2.LINE_AA)
    return np.vstack([band, picture])


def _enlarged(picture: np.ndarray, least: int) -> np.ndarray:
    """A picture a whole number of times as large, so that its longer side is about so many pixels at least."""
    times = max(1, round(least / max(picture.shape[:2])))
    return np.kron(picture, np.ones((times, times, 1), np.uint8))


def draw_depth(picture: np.ndarray, metres: np.ndarray) -> np.ndarray:
    """The picture, (H, W, 3) uint8 in BGR, beside it its depths, (H, W) in metres, in colours, and what those mean."""
    import cv2

    low, high = float(metres.min()), float(metres.max())
    scaled = (metres - low) / max(high - low, 1e-6)
    colours_of_depth = cv2.applyColorMap((255 * scaled).astype(np.uint8), cv2.COLORMAP_VIRIDIS)
    shown = [_enlarged(one, 320) for one in (picture, colours_of_depth)]
    height = shown[0].shape[0]
    size = height / 480
    bar = np.full((height, int(190 * size), 3), 255, np.uint8)
    colours = np.linspace(255, 0, height).astype(np.uint8)[:, None].repeat(int(40 * size), 1)
    bar[:, int(10 * size) : int(10 * size) + colours.shape[1]] = cv2.applyColorMap(colours, cv2.COLORMAP_VIRIDIS)
    for i in range(5):
        text, at = (
            f'{high - (high - low) * i / 4:.2f} m',
            (int(60 * size), int(20 * size + (height - 28 * size) * i / 4)),
        )
        cv2.putText(bar, text, at, cv2.FONT_HERSHEY_SIMPLEX, 0.75 * size, (0, 0, 0), max(1, round(size)), cv2.LINE_AA)
    return np.hstack([*shown, bar])
