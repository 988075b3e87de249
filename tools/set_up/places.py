"""Where everything of one environment lies in a checkout, and which packages it pins.

There are three: `.venv`, of requirements/base.txt and known_good.txt; and one for each other stack, which differs by
the lines of its own file there.
"""

import re
from pathlib import Path

from set_up.machine import PYTHONS

STACKS = {'openmmlab': ('3.11', '3.10'), 'newest': PYTHONS}  # the Pythons that torch has there, the best first


def name_of(line):
    """The package of a line of requirements in lower case, '' if it names none."""
    return re.match(r'[\w.-]*', line).group(0).lower()


class Places:
    """Of `.venv`, or of `.venv-<stack>`."""

    def __init__(self, root, stack=None):
        self.root, self.stack = Path(root).resolve(), stack
        self.pythons = STACKS[stack] if stack else PYTHONS
        self.venv = self.root / (f'.venv-{stack}' if stack else '.venv')
        self.python = self.venv / 'bin' / 'python'
        self.build = self.venv / 'build'  # outlives a broken venv, for it holds what the compiler has done so far
        self.stamp = self.venv / 'ready.json'
        self.built_for = self.venv / 'mmcv_built_for.txt'  # the key of the wheel that is installed
        folder = self.root / 'requirements'
        self.files = [folder / 'base.txt', folder / 'known_good.txt'] + ([folder / f'{stack}.txt'] if stack else [])
        self.lock = None  # the file descriptor of build/lock, once it is taken

    @property
    def base(self):
        return self.requirements()[0]

    @property
    def rest(self):
        return self.requirements()[1]

    @property
    def mmcv(self):
        return 'mmcv-lite' if self.pin('mmcv-lite') else 'onedl-mmcv'

    def site(self):
        return next(iter(self.venv.glob('lib/python3*/site-packages')), self.venv / 'none')

    def requirements(self):
        """(what is installed first, the rest), as lines; a stack's own lines are in place of those of its packages."""
        base, rest, *own = ([x for x in f.read_text().splitlines() if name_of(x)] for f in self.files)
        own = {name_of(line): line for lines in own for line in lines}

        def kept(lines):
            others = [line for line in lines if name_of(line) not in own]
            # two families with the same import names: one that is named leaves the other out
            return [line for line in others if 'mmengine' not in own or not line.startswith('onedl-')]

        first = {name_of(line) for line in base}
        of_first = [line for name, line in own.items() if name in first]
        return of_first + kept(base), kept(rest) + [line for name, line in own.items() if name not in first]

    def pin(self, name):
        """The version that the pins name for `name`, or None."""
        for line in self.base + self.rest:
            found = re.match(rf'{re.escape(name)}==([^\s;]+)', line)
            if found:
                return found.group(1)
        return None
