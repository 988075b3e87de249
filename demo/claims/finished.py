"""What was measured, one file for each claim and seed, so that an interrupted run goes on where it was."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nfnet_mm.errors import write_text

from .claim import Found

VERSION = 1  # grows when what is measured changes, so that what an older version found is measured again


@dataclasses.dataclass(frozen=True)
class Job:
    """A claim's measurement for one seed."""

    letter: str
    seed: int
    quick: bool

    def path(self, folder: Path) -> Path:
        """The file of its result."""
        return folder / 'measured' / f'{self.letter}_{self.seed}{"_quick" * self.quick}.json'


def read(job: Job, folder: Path) -> dict[str, Any] | None:
    """``found``, and the ``cpu_seconds`` that it took; None if it is to be measured."""
    try:
        content = json.loads(job.path(folder).read_text())
    except (OSError, ValueError):
        return None
    return content if isinstance(content, Mapping) and content.get('version') == VERSION else None


def write(job: Job, folder: Path, found: Found, cpu_seconds: float) -> None:
    """Keep a result, whole or not at all."""
    path = job.path(folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    content = json.dumps(dict(version=VERSION, **dataclasses.asdict(job), cpu_seconds=cpu_seconds, found=found))
    write_text(path, content)
