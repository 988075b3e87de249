"""NYU Depth v2 in mmseg's folders: which frames are trained on, and whether their depths are metres."""

import os
from typing import Any

import numpy as np
from mmengine import fileio
from mmengine.logging import print_log
from mmseg.datasets import NYUDataset
from mmseg.datasets.transforms import LoadDepthAnnotation

from nfnet_mm.errors import UserError, did_you_mean
from nfnet_mm.registry import DATASETS

from .prepare import is_labelled

# How to get frames of each kind, or to do without them.
_HOW = {
    'raw': "prepare them (docs/depth.md), by mmseg's converter for one, or train on the 795 labelled images, which is "
    'not comparable: train_dataloader.dataset.frames=labelled',
    'labelled': 'tools/prepare_nyu.py makes them',
    'test': 'tools/prepare_nyu.py makes them',
}
# A choice: the metres in which the median depth must lie. No room's is beyond the sensor's 10; other units' are.
_MEDIAN = (1.0, 10.0)


@DATASETS.register_module()
class NYUDepthDataset(NYUDataset):
    """mmseg's ``NYUDataset``, of one kind of frames, every one with a depth map, in metres.

    mmseg's NYU converter and tools/prepare_nyu.py write the same folders and the same unit (16-bit PNG, millimetres,
    0 where the depth is unknown) but other names, so that both may write to one ``data_root``. The depth maps of 16
    images are loaded at the start, as the pipeline will, to see whether they are metres.

    Args:
        frames: which of the images in ``data_prefix``. ``'labelled'``: those that tools/prepare_nyu.py named
            ``nyu_NNNN``. ``'raw'``: all others. ``'test'``: the labelled ones, or all if there is none, as after
            mmseg's converter, whose test images are the same ones by other names.
        **kwargs: of ``NYUDataset``. Without ``depth_map_path`` in ``data_prefix`` no depth map is asked for.

    Raises:
        UserError: another value of ``frames``, a missing folder, no image of the kind, an image without a depth map,
            or depths that cannot be metres.
    """

    def __init__(self, frames: str = 'raw', **kwargs: Any) -> None:
        if frames not in tuple(_HOW):
            raise UserError(f'frames={frames!r} must be {", ".join(map(repr, _HOW))}.{did_you_mean(frames, _HOW)}')
        self.frames = frames
        super().__init__(**kwargs)

    def _get_category_id_from_filename(self, image_fname: str) -> int:
        """The scene's index, or -1: of a name without a digit too, at which mmseg's own method ends."""
        named = any(map(str.isdigit, os.path.basename(image_fname)))
        return super()._get_category_id_from_filename(image_fname) if named else -1

    def load_data_list(self) -> list[dict]:
        """The images of this kind, in the order of their names; see the class."""
        images, depths = (self.data_prefix.get(key) for key in ('img_path', 'depth_map_path'))
        for folder in filter(None, (images, depths)):
            if not fileio.isdir(folder, backend_args=self.backend_args):
                raise UserError(f'no folder {folder!r} for frames={self.frames!r}: {_HOW[self.frames]}')
        found = super().load_data_list()
        kinds: dict[bool, list[dict]] = {True: [], False: []}
        for info in found:
            kinds[is_labelled(info['img_path'])].append(info)
        infos = kinds[self.frames != 'raw'] or (found if self.frames == 'test' else [])
        if not infos:
            has = f'{images!r} holds {len(found)} {self.img_suffix} images, none for frames={self.frames!r}'
            raise UserError(f'{has}: {_HOW[self.frames]}')
        if left := len(found) - len(infos):
            print_log(f'{images}: frames={self.frames!r} takes {len(infos)} images and leaves out {left}', 'current')
        if depths:
            self._check_depths(infos, depths)
        return infos

    def _check_depths(self, infos: list[dict], folder: str) -> None:
        """Raise a :class:`UserError` if a depth map is missing, or if those of 16 images cannot be metres."""
        names = fileio.list_dir_or_file(
            folder, list_dir=False, suffix=self.seg_map_suffix, recursive=True, backend_args=self.backend_args
        )
        known = {os.path.join(folder, name) for name in names}
        if missing := [info['img_path'] for info in infos if info['depth_map_path'] not in known]:
            what = f'{len(missing)} of {len(infos)} images have no depth map ({self.seg_map_suffix}) of their name'
            raise UserError(f'{what} in {folder!r}, for one {missing[0]!r}')
        load = next((step for step in self.pipeline.transforms if isinstance(step, LoadDepthAnnotation)), None)
        if load is None:
            return
        sample = np.unique(np.linspace(0, len(infos) - 1, 16).round().astype(int))
        maps = [load(dict(infos[i], seg_fields=[]))['gt_depth_map'] for i in sample]
        values = np.concatenate([depth[np.isfinite(depth) & (depth > 0)] for depth in maps])
        what = f'{folder!r}, depth maps of {len(sample)} images:'
        if not values.size:
            raise UserError(f'{what} not one pixel has a depth')
        median, (low, high) = float(np.median(values)), _MEDIAN
        if not low <= median <= high:
            factor = f'is depth_rescale_factor={load.depth_rescale_factor:g} theirs (1e-3 for millimetres)?'
            raise UserError(
                f'{what} the median depth would be {median:.4g} m, but a room has {low:g} to {high:g}: {factor}'
            )
