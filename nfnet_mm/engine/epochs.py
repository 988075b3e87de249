"""A schedule that is told in epochs, counted in updates of whatever total batch."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from mmengine.optim import scheduler as known
from mmengine.registry import PARAM_SCHEDULERS

from nfnet_mm.errors import UserError, check_number

# Schedulers that go by epochs, and what beside begin and end they count in them, from their begin.
_LENGTHS: dict[type, str] = {
    known.StepParamScheduler: 'step_size',
    known.MultiStepParamScheduler: 'milestones',
    known.CosineAnnealingParamScheduler: 'T_max',
    known.CosineRestartParamScheduler: 'periods',
    known.OneCycleParamScheduler: 'total_steps',
    known.ConstantParamScheduler: '',
    known.LinearParamScheduler: '',
    known.PolyParamScheduler: '',
    known.ExponentialParamScheduler: '',
}
# They have done their part at the last update before ``end``, so that ``end`` comes one later here.
_EARLY = (known.ConstantParamScheduler, known.LinearParamScheduler)


def updates_of(epochs: float, images: int, total_batch: int) -> int:
    """Whole updates of ``total_batch`` samples in so many epochs of ``images`` samples.

    >>> updates_of(90, 1281167, 1024), updates_of(0.5, 1281167, 1024)
    (112602, 625)
    """
    return int(epochs * images // total_batch)


def in_updates(
    cfg: Mapping[str, Any], name: str, total_batch: int, images: int | None, max_iters: int
) -> dict[str, Any]:
    """A parameter scheduler's config, in updates where it was in epochs (``by_epoch=True``, which is the default).

    An epoch is the update of :func:`updates_of`, for the begin and end and what else mmengine's schedulers count. What
    LinearLR and ConstantLR lead to, such as a warm-up's full rate, is reached exactly there, not one update before;
    ExponentialLR multiplies at each update, by as much in all. A polynomial decay without ``end`` and a cosine without
    ``T_max`` go on until ``max_iters`` or, the cosine, its ``end``; so also if they are in updates already.

    Args:
        cfg: left as it is.
        name: of the scheduler, for messages.
        total_batch: samples of an update.
        images: samples of an epoch; None if that is not known.
        max_iters: updates of the training.

    Raises:
        UserError: it goes by epochs and cannot be converted.

    >>> in_updates(dict(type='LinearLR', start_factor=0.1, end=5), 'param_scheduler.0', 4, images=40, max_iters=900)
    {'type': 'LinearLR', 'start_factor': 0.1, 'end': 51, 'begin': 0, 'by_epoch': False}
    """
    new, kind = dict(cfg), cfg.get('type')
    if isinstance(kind, str):
        with PARAM_SCHEDULERS.switch_scope_and_registry(None) as registry:
            kind = registry.get(kind)
    if not isinstance(kind, type) or issubclass(kind, known.ReduceOnPlateauParamScheduler):
        return new  # mmengine says what is wrong with it, or it counts validations
    if new.get('by_epoch', True):
        _convert(new, kind, f'{name} ({kind.__name__})', total_batch, images)
    cosine = issubclass(kind, known.CosineAnnealingParamScheduler)
    if issubclass(kind, known.PolyParamScheduler) or (cosine and not new.get('T_max')):
        begin = new.get('begin', 0)
        new.setdefault('end', max(max_iters, begin + 1))  # one that begins after the training never acts
        if cosine:
            new['T_max'] = new['end'] - begin
    return new


def _convert(new: dict[str, Any], kind: type, name: str, total_batch: int, images: int | None) -> None:
    """Convert what a config counts in epochs, in place."""
    key = next((key for base, key in _LENGTHS.items() if issubclass(kind, base)), None)
    if key is None:
        raise UserError(
            f'{name} has by_epoch=True in a way that is not known here: state it in updates, by_epoch=False'
        )
    if images is None:
        what = 'and the data set has no length: set train_cfg.images, the samples of an epoch'
        raise UserError(f'{name} counts epochs, {what}, or state it in updates, by_epoch=False')

    def checked(option: str, epochs: Any) -> float:
        return check_number(f'{name} {option}', epochs, '[0, inf)', ', in epochs')

    def update(epochs: float) -> int:
        return updates_of(epochs, images, total_batch)

    first = checked('begin', new.get('begin', 0))
    begin = update(first)
    if 'end' in new:
        end = update(checked('end', new['end']))
        if end <= begin:
            raise UserError(f'{name} has no update between its begin={first!r} and its end={new["end"]!r}, in epochs')
        new['end'] = end + issubclass(kind, _EARLY)
    value = new.get(key) or ()
    if key == 'milestones':
        new[key] = [update(first + checked(key, epoch)) - begin for epoch in value]
    elif key == 'periods':
        marks = [update(first + sum(checked(key, epochs) for epochs in value[:i])) for i in range(len(value) + 1)]
        new[key] = [max(after - before, 1) for before, after in pairwise(marks)]
    elif key in new and new[key] is not None:
        new[key] = max(update(first + checked(key, new[key])) - begin, 1)
    if issubclass(kind, known.ExponentialParamScheduler) and 'gamma' in new:
        new['gamma'] **= total_batch / images
    new.update(begin=begin, by_epoch=False)
    new.pop('convert_to_iter_based', None)  # mmengine's own, which counts batches
