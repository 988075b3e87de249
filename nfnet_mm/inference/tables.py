"""What was found in all pictures of a run, in the forms that other programs read."""

import csv
import io
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nfnet_mm.errors import write_text


class Tables:
    """Collects what was found in picture after picture, of one task."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, tuple[int, ...], dict[str, Any]]] = []

    def add(self, file: str, shape: Sequence[int], told: dict[str, Any]) -> str:
        """Add a picture of (height, width), and say in one line what was found in it."""
        self.rows.append((file, tuple(shape), told))
        if 'objects' in told:
            counts = Counter(_name(one) for one in told['objects'])
            found = ', '.join(f'{count} × {name}' for name, count in counts.most_common(6))
            return found or 'nothing found'
        if 'top' in told:
            return ', '.join(f'{_name(one)} {one["score"]:.2f}' for one in told['top'][:3])
        if 'classes' in told:
            largest = sorted(told['classes'], key=lambda one: -one['share'])[:6]
            return ', '.join(f'{_name(one)} {one["share"]:.1%}' for one in largest)
        return '{min:.2f} to {max:.2f} m, {mean:.2f} m in the mean'.format(**told['depth_in_metres'])

    def summary(self) -> tuple[list[str], list[list[object]], str]:
        """A table of the whole run: header, rows, caption."""
        all_told = [told for _, _, told in self.rows]
        if 'objects' in all_told[0]:
            scores: dict[str, list[float]] = {}
            for one in (one for told in all_told for one in told['objects']):
                scores.setdefault(_name(one), []).append(one['score'])
            rows = [[name, len(some), f'{sum(some) / len(some):.2f}'] for name, some in sorted(scores.items())]
            return ['class', 'objects', 'mean score'], rows, f'Objects in {len(all_told)} pictures'
        if 'top' in all_told[0]:
            first: dict[str, list[float]] = {}
            for told in all_told:
                first.setdefault(_name(told['top'][0]), []).append(told['top'][0]['score'])
            rows = [[name, len(some), f'{sum(some) / len(some):.2f}'] for name, some in sorted(first.items())]
            return ['class', 'pictures', 'mean score'], rows, 'Pictures by the class of the highest score'
        if 'classes' in all_told[0]:
            shares: Counter[str] = Counter()
            for one in (one for told in all_told for one in told['classes']):
                shares[_name(one)] += one['share'] / len(all_told)
            rows = [[name, f'{100 * share:.2f}'] for name, share in shares.most_common()]
            return ['class', '% of the pixels'], rows, f'Mean of {len(all_told)} pictures'
        rows = [
            [Path(file).name, *(f'{told["depth_in_metres"][key]:.2f}' for key in ('min', 'mean', 'max'))]
            for file, _, told in self.rows[:200]
        ]
        return ['picture', 'least (m)', 'mean (m)', 'greatest (m)'], rows, 'Depths'

    def write(self, folder: Path, classes: Sequence[str]) -> dict[str, Path]:
        """Write the files of the task: of detection COCO's JSON, of classification a CSV.

        Returns:
            {what it is: file}
        """
        told = self.rows[0][2]
        if 'objects' in told:
            images, found = self.coco(classes)
            return {
                'detections (COCO)': _write(folder / 'coco_results.json', json.dumps(found)),
                'their images and categories (COCO)': _write(folder / 'coco_images.json', json.dumps(images)),
            }
        if 'top' in told:
            return {'classes and scores (CSV)': _write(folder / 'predictions.csv', self.top_csv())}
        return {}

    def coco(self, classes: Sequence[str]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Detections as COCO's results, and the images and categories that their numbers stand for.

        Images are numbered from 1 in their order, categories are the labels plus 1; boxes are x, y, width, height.
        """
        images, found, labels = [], [], set(range(len(classes)))
        for number, (file, (height, width), told) in enumerate(self.rows, 1):
            images.append(dict(id=number, file_name=file, height=height, width=width))
            for one in told['objects']:
                x1, y1, x2, y2 = one['box']
                more = dict(segmentation=one['mask']) if 'mask' in one else {}
                box = [x1, y1, x2 - x1, y2 - y1]
                found.append(dict(image_id=number, category_id=one['label'] + 1, bbox=box, score=one['score'], **more))
                labels.add(one['label'])
        names = dict(enumerate(classes))
        categories = [dict(id=label + 1, name=names.get(label, str(label))) for label in sorted(labels)]
        return dict(images=images, annotations=[], categories=categories), found

    def top_csv(self) -> str:
        """A line for each picture: its file, and the up to five best classes with their scores."""
        file = io.StringIO()
        writer = csv.writer(file)
        count = max(len(told['top']) for _, _, told in self.rows)
        writer.writerow(['file', *(f'{what}{i}' for i in range(1, count + 1) for what in ('class', 'score'))])
        for path, _, told in self.rows:
            writer.writerow([path, *(cell for one in told['top'] for cell in (_name(one), f'{one["score"]:.6f}'))])
        return file.getvalue()


def _name(one: dict[str, Any]) -> str:
    return str(one['label']) if one['name'] is None else str(one['name'])


def _write(target: Path, text: str) -> Path:
    write_text(target, text)
    return target
