"""All trainings of a sweep, one after another, gone on with where it was interrupted."""

import copy
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from nfnet_mm import run as runs
from nfnet_mm.engine.agc import check_agc
from nfnet_mm.errors import UserError, check_positive, did_you_mean, is_integer, write_text

from .trial import SCHEDULES, Outcome, parse_optimizer, run_trial, set_clipping, shorten

RESULTS = 'outcomes.json'
VALUES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3)


def sweep(
    config: str,
    out: str | Path,
    values: Sequence[float] = VALUES,
    optimizers: Sequence[str] = ('config',),
    seeds: Sequence[int] = (0, 1, 2),
    iters: int = 300,
    schedule: str = 'cosine',
    validate: bool = False,
    options: Mapping[str, Any] | None = None,
    tell: Callable[[str], object] = lambda line: None,
) -> list[Outcome]:
    """Train a config ``iters`` iterations with each optimizer, clipping and seed, and without clipping.

    Trainings that differ in nothing but the clipping start from the same weights and see the same pictures in the same
    order. Each outcome is written to ``out`` when it is there: the same call again goes on, and further values,
    optimizers and seeds are added to what is there.

    Args:
        config: file, or name of one.
        out: folder for the outcomes, and for the log of each training.
        values: clippings.
        optimizers: ``NAME`` or ``NAME=RATE`` each; ``config`` is the config's own.
        seeds: of the initial weights and the order of the data.
        iters: iterations of each training.
        schedule: of the learning rate, after a linear rise over the first tenth: 'cosine' to zero, or 'constant'.
        validate: also validate once at the end.
        options: values that replace the config's, by dotted key; for example ``train_dataloader.batch_size``.
        tell: called with a line of progress at a time.

    Returns:
        the outcomes asked for, by optimizer, clipping (None, which is no clipping, first) and seed.

    Raises:
        UserError: an argument is none of these, the config cannot be trained with AGC, or the folder holds outcomes of
            other settings.
    """
    check_positive('iters', iters)
    if schedule not in SCHEDULES:
        hint = did_you_mean(schedule, SCHEDULES)
        raise UserError(f'schedule={schedule!r} must be one of {", ".join(SCHEDULES)}.{hint}')
    for value in values:
        check_agc(value, 1e-3)
    for seed in seeds:
        if not is_integer(seed) or seed < 0:
            raise UserError(f'seed {seed!r} must be an integer of at least 0')
    if not seeds or not optimizers:
        raise UserError('a sweep needs at least one seed and one optimizer')
    out = Path(out)
    cfg = runs.load_config(config, dict(options or {}), str(out))
    runs.check_data(cfg, ('train', 'val') if validate else ('train',))
    chosen = dict(parse_optimizer(text, cfg) for text in optimizers)
    shorten(cfg, iters, schedule, validate)
    settings = dict(config=str(config), iters=iters, schedule=schedule, validate=validate, digest=_digest(cfg))
    done = _read(out / RESULTS, settings)
    plan = [
        (label, clipping, seed)
        for label in chosen
        for clipping in (None, *sorted(set(values)))
        for seed in dict.fromkeys(seeds)
    ]
    tell('\n'.join(set_clipping(copy.deepcopy(cfg), next(iter(chosen.values())), next(iter(values), 0.01))))
    for i, (label, clipping, seed) in enumerate(plan):
        where = f'{i + 1} of {len(plan)}: {label}, clipping {clipping or "none"}, seed {seed}'
        if (label, clipping, seed) in done:
            continue
        one = copy.deepcopy(cfg)
        set_clipping(one, chosen[label], clipping)
        name = f'{label.replace(" ", "_")}-clip_{clipping or "none"}-seed_{seed}'
        found = run_trial(one, label, clipping, seed, out / 'runs' / name)
        done[label, clipping, seed] = found
        _write(out / RESULTS, settings, done.values())
        tell(f'{where}: {found.diverged or f"loss {found.loss:.4g}"}')
    return [done[key] for key in plan]


def _digest(cfg: Any) -> str:
    """Of everything in a config but the optimizer and AGC, which a sweep sets."""
    content = copy.deepcopy(cfg.to_dict())
    for key in ('work_dir', 'optim_wrapper'):
        content.pop(key, None)
    wrapper = {key: value for key, value in cfg.optim_wrapper.items() if key not in ('agc', 'optimizer')}
    return hashlib.sha256(repr((content, wrapper)).encode()).hexdigest()[:16]


def _write(path: Path, settings: Mapping[str, Any], outcomes: Iterable[Outcome]) -> None:
    content = json.dumps(dict(settings=settings, outcomes=[asdict(one) for one in outcomes]), indent=1)
    write_text(path, content)


def _read(path: Path, settings: Mapping[str, Any]) -> dict[tuple[str, float | None, int], Outcome]:
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        return {}
    try:
        content = json.loads(path.read_text())
        before, outcomes = content['settings'], [Outcome(**one) for one in content['outcomes']]
    except (ValueError, KeyError, TypeError):
        raise UserError(f'{str(path)!r} is no file of outcomes of this command: name another folder') from None
    for key, value in settings.items():
        if before.get(key) != value:
            what = 'settings of the config' if key == 'digest' else f'{key}={before.get(key)!r}, not {value!r}'
            other = 'other ' * (key == 'digest')
            raise UserError(f'{str(path)!r} holds outcomes of {other}{what}: name another folder')
    return {(one.optimizer, one.clipping, one.seed): one for one in outcomes}
