"""Build the wheel with what the OpenMMLab packages carry in ``.mim``, and leave nothing behind in the source.

Everything else about the package is in setup.cfg.
"""

import atexit
import os
import shutil
import sys
import tempfile
from pathlib import Path

from setuptools import setup
from setuptools.command.build import build as _build
from setuptools.command.build_py import build_py as _build_py
from setuptools.command.egg_info import egg_info as _egg_info
from setuptools.command.sdist import sdist as _sdist

ROOT = Path(__file__).resolve().parent
WORK = tempfile.mkdtemp(prefix='nfnet_mm-build-')
_COMMAND = 'from nfnet_mm.commands import main'
atexit.register(shutil.rmtree, WORK, ignore_errors=True)


def mim_files():
    """(source, path below ``nfnet_mm/.mim``) of the configs, the model index and the tools that need no clone."""
    yield ROOT / 'model-index.yml', 'model-index.yml'
    for folder in ('configs', 'tools'):
        for path in sorted((ROOT / folder).rglob('*')):
            in_clones = folder == 'tools' and path.suffix == '.py' and _COMMAND not in path.read_text(encoding='utf-8')
            if path.suffix in ('.py', '.yml', '.sh') and not in_clones:
                yield path, str(path.relative_to(ROOT))


class build(_build):
    """In a folder of its own: what an earlier build left in ``build/`` would get into the wheel."""

    def initialize_options(self):
        super().initialize_options()
        self.build_base = os.path.join(WORK, 'build')


class build_py(_build_py):
    """With ``.mim``. An editable install has the links in ``nfnet_mm/.mim`` instead."""

    def run(self):
        super().run()
        if not self.editable_mode:
            for source, path in mim_files():
                target = os.path.join(self.build_lib, 'nfnet_mm', '.mim', path)
                self.mkpath(os.path.dirname(target))
                self.copy_file(str(source), target)


class sdist(_sdist):
    """Without the metadata that it has to write into the source."""

    def run(self):
        metadata = ROOT / 'nfnet_mm.egg-info'
        before = metadata.exists()
        super().run()
        if not before:
            shutil.rmtree(metadata, ignore_errors=True)


class egg_info(_egg_info):
    """Outside the source, but for an sdist, which holds it."""

    def initialize_options(self):
        super().initialize_options()
        if 'sdist' not in sys.argv:
            self.egg_base = WORK


setup(cmdclass=dict(build=build, build_py=build_py, egg_info=egg_info, sdist=sdist))
