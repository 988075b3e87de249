"""Find the checkpoint that a run goes on from: the newest that is whole."""

import os
from collections.abc import Iterator
from pathlib import Path

from nfnet_mm.engine.checkpoint_file import damage
from nfnet_mm.engine.sharded_checkpoint import restore_replaced

# Of mmengine's templates, and of what a signal saves.
_TEMPLATES = ('iter_{}.pth', 'epoch_{}.pth')


def newest_checkpoint(
    work_dir: str, out_dir: str | None = None, template: str | None = None
) -> tuple[str | None, list[str]]:
    """The newest whole checkpoint of a run, and what was passed over, a line each.

    Args:
        work_dir: its folder.
        out_dir: where its ``CheckpointHook`` writes, if not there.
        template: its ``filename_tmpl``, if it has one. Files of other names, such as the best and the published ones,
            lack what a run needs to go on.
    """
    passed: list[str] = []
    for path in _newest_first(work_dir, out_dir, template):
        if '://' in path:
            return path, passed
        what = damage(path) if os.path.exists(path) else 'it does not exist'
        if what is None:
            return path, passed
        passed.append(f'{path!r}: {what}')
    return None, passed


def _told(name: str, template: str | None) -> tuple[str, int] | None:
    """(template, number) of a checkpoint's name; None if it is none of a run's own."""
    for one in (*_TEMPLATES, *([template] if template else [])):
        before, _, after = one.partition('{')
        after = after.partition('}')[2]
        number = name.removeprefix(before).removesuffix(after)
        if name == f'{before}{number}{after}' and number.isdecimal():
            return one, int(number)
    return None


def _newest_first(work_dir: str, out_dir: str | None, template: str | None) -> Iterator[str]:
    pointer = Path(work_dir, 'last_checkpoint')
    last = pointer.read_text(encoding='utf-8', errors='replace').strip() if pointer.is_file() else ''
    if '://' in last:
        yield last
        return
    folders = [Path(work_dir), *([Path(out_dir, os.path.basename(os.path.normpath(work_dir)))] if out_dir else [])]
    numbered = {}  # by (template, number)
    for folder in folders:
        restore_replaced(folder)
        for path in folder.iterdir() if folder.is_dir() else ():
            if told := _told(path.name, template):
                numbered[told] = path
    named = _told(os.path.basename(last), template)
    if named:
        kind, number = named
        # One of a higher number is of this run only if a kill came before last_checkpoint named it; otherwise of a run
        # in this folder that was gone back on.
        written = _time(pointer)
        for own, n in sorted(numbered, key=lambda key: -key[1]):
            if own == kind and n > number and _time(numbered[own, n]) >= written:
                yield str(numbered[own, n])
        found = numbered.get(named)
        # the folder may have been moved or copied since; a hook's own folder stays where it is
        yield str(found or (last if _elsewhere(last) else Path(work_dir, os.path.basename(last))))
    elif numbered or last:
        if last:  # of a template that the config no longer has
            here = os.path.join(work_dir, os.path.basename(last))
            yield here if os.path.exists(here) else last
        if not numbered:
            return
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
    return os.path.exists(last) and not os.path.exists(os.path.join(os.path.dirname(last), 'last_checkpoint'))
