"""What a finished demo run shows: pictures, curves, figures, and where they are."""
from pathlib import Path

import torch

from .pictures import draw_curves, draw_prediction, read_scalars

__all__ = ['draw', 'summary']

CURVES = {
    'losses': ('loss', 'loss_rpn_cls', 'loss_rpn_bbox', 'loss_cls', 'loss_bbox', 'loss_mask'),
    'validation': ('coco/bbox_mAP', 'coco/segm_mAP'),
    'AGC': ('agc/clipped_fraction', ),
}


def _scalars(runner):
    return Path(runner.log_dir) / 'vis_data' / 'scalars.json'


def _instances(found):
    masks = found.masks
    masks = masks.cpu().numpy() if isinstance(masks, torch.Tensor) else masks.to_ndarray()
    boxes = found.bboxes
    boxes = getattr(boxes, 'tensor', boxes)  # the truth comes as a box type of mmdet's
    return dict(boxes=boxes.cpu().numpy(), labels=found.labels.cpu().numpy(), masks=masks.astype(bool))


def draw(runner, folder, count, min_score=0.3):
    """Draw the trained model's predictions beside the truth, for the first ``count`` validation pictures, and curves.

    Args:
        runner (mmengine.runner.Runner): After training a detector that predicts masks.
        folder (pathlib.Path): Where the PNGs go; those of an earlier run are replaced.
        min_score (float): Predictions below it are not drawn.

    Returns:
        pathlib.Path: ``folder``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob('*.png'):
        old.unlink()
    loader, names = runner.val_dataloader, runner.val_dataloader.dataset.metainfo['classes']
    runner.model.eval()
    drawn = 0
    for batch in loader:
        if drawn >= count:
            break
        pixels = batch['inputs']
        with torch.no_grad():
            results = runner.model.test_step(batch)
        for image, sample in zip(pixels, results[:count - drawn]):
            kept = sample.pred_instances[sample.pred_instances.scores >= min_score]
            found = dict(_instances(kept), scores=kept.scores.cpu().numpy())
            rgb = image.numpy()[::-1].transpose(1, 2, 0)  # mmdet loads BGR
            panels = {'truth': _instances(sample.gt_instances), f'predictions (score >= {min_score})': found}
            draw_prediction(folder / f'{Path(sample.img_path).stem}.png', rgb, panels, names)
            drawn += 1
    draw_curves(folder / 'curves.png', read_scalars(_scalars(runner)), CURVES)
    return folder


def summary(runner, pictures):
    """The last lines of the demo: the figures, and where the weights, the log and the pictures are."""
    curves = read_scalars(_scalars(runner))
    weights = Path(runner.work_dir, 'last_checkpoint').read_text().strip()
    log = Path(runner.log_dir) / f'{runner.timestamp}.log'
    lines = [f'{name} AP {100 * curves[key][1][-1]:.1f}' for name, key in
             (('box', 'coco/bbox_mAP'), ('mask', 'coco/segm_mAP')) if key in curves]
    return '\n'.join([
        f'weights:  {weights}', f'log:      {log}', f'pictures: {pictures}/ (curves.png, and one per picture)',
        f'result:   {", ".join(lines)} on {len(runner.val_dataloader.dataset)} validation pictures'])
