"""Folders of generated data that are whole or not there, and that never replace what was not generated."""

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any


def is_complete(root: Path, spec: Any, manifest: str) -> bool:
    """Whether ``root`` holds the data of exactly this spec (the folder appears under its name only when whole)."""
    try:
        return json.loads((root / manifest).read_text()) == asdict(spec)
    except (OSError, ValueError):
        return False


def write_once(root: str | Path, spec: Any, manifest: str, fill: Callable[[Path], None]) -> Path:
    """Write generated data, unless they already stand there whole.

    They are written into a folder beside ``root`` that is then renamed, so that an interrupted run never leaves a
    ``root`` that looks finished.

    Args:
        root: the folder. One written by this function for another spec is replaced.
        spec: a dataclass of plain values that decides every byte; equal specs mean equal data.
        manifest: name of the JSON file that keeps the spec and tells a generated folder from a foreign one.
        fill: writes the data into the empty folder it is given.

    Returns: ``root``.

    Raises:
        FileExistsError: ``root`` holds something that this function did not write.
    """
    root = Path(root)
    if is_complete(root, spec, manifest):
        return root
    if root.exists() and not (root / manifest).is_file() and (root.is_file() or any(root.iterdir())):
        raise FileExistsError(
            f'{str(root)!r} exists and holds no {manifest}, so it is not a generated dataset and '
            'will not be overwritten: name another folder, or move it away'
        )
    root.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f'.{root.name}.', dir=root.parent))
    try:
        fill(draft)
        (draft / manifest).write_text(json.dumps(asdict(spec)))
        os.chmod(draft, 0o755)  # mkdtemp makes it private to this user
        if root.exists() and not is_complete(root, spec, manifest):  # another process may have finished first
            shutil.rmtree(root)
        try:
            os.rename(draft, root)
        except OSError:
            if not is_complete(root, spec, manifest):
                raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return root
