"""Find the checkpoint that a run goes on from: the newest that is whole."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

from nfnet_mm.engine.checkpoint_file import damage

_NAME = re.compile(r'(?!best_)(.*?)_?(\d+)\.pth')


def newest_checkpoint(work_dir: str, out_dir: str | None = None) -> tuple[str | None, list[str]]:
    """The newest whole checkpoint of a run, and what was passed over, a line each.

    Args:
        work_dir: its folder.
        out_dir: where its ``CheckpointHook`` writes, if not there.
    """
    passed: list[str] = []
    for path in _newest_first(work_dir, out_dir):
        if '://' in path:
            return path, passed
        what = damage(path) if os.path.isfile(path) else 'it does not exist'
        if what is None:
            return path, passed
        passed.append(f'{path!r}: {what}')
    return None, passed


def _newest_first(work_dir: str, out_dir: str | None) -> Iterator[str]:
    pointer = Path(work_dir, 'last_checkpoint')
    last = pointer.read_text(encoding='utf-8', errors='replace').strip() if pointer.is_file() else ''
    if '://' in last:
        yield last
        return
    folders = [Path(work_dir), *([Path(out_dir, os.path.basename(os.path.normpath(work_dir)))] if out_dir else [])]
    numbered = {}  # by (kind, number): 'iter', 40
    for folder in folders:
        for path in folder.glob('*.pth'):
            if found := _NAME.fullmatch(path.name):
                numbered[found[1], int(found[2])] = path
    named = _NAME.fullmatch(os.path.basename(last))
    if named:
        kind, number = named[1], int(named[2])
        # One of a higher number is of this run only if a kill came before last_checkpoint named it; otherwise of a run
        # in this folder that was gone back on.
        written = _time(pointer)
        for own, n in sorted(numbered, key=lambda key: -key[1]):
            if own == kind and n > number and _time(numbered[own, n]) >= written:
                yield str(numbered[own, n])
        here = numbered.get((kind, number))
        # the folder may have been moved or copied since; a hook's own folder stays where it is
        yield str(here or (last if _elsewhere(last) else Path(work_dir, os.path.basename(last))))
    elif numbered:
        kind, number = max(numbered, key=lambda key: (_time(numbered[key]), key[1]))[0], None
    else:
        return
    older = [key for key in numbered if key[0] != kind or number is None or key[1] < number]
    # of this kind by number, then of the other kind (an epoch's beside an iteration's) by their time
    for key in sorted(older, key=lambda key: (key[0] != kind, -key[1] if key[0] == kind else -_time(numbered[key]))):
        yield str(numbered[key])


def _time(path: Path) -> float:
    return path.stat().st_mtime


def _elsewhere(last: str) -> bool:
    """Whether a file is in a folder that is no run's own, as the one that this run's was copied from would be."""
    return os.path.isfile(last) and not os.path.exists(os.path.join(os.path.dirname(last), 'last_checkpoint'))
