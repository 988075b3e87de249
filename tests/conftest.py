import os

# Before torch loads: threads that wait by spinning slow the tests several times where the cores are shared.
os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')

import signal

import pytest
from mmengine.registry import DefaultScope

from nfnet_mm import operators
from nfnet_mm.dependencies import import_yapf

operators.install()  # before anything imports mmcv.ops
import_yapf()

# A shell starts what goes on in the background with SIGINT ignored, and so would be what the tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def default_scope():
    """Runners set mmengine's global default scope: every test begins and ends with the one before it."""
    before = DefaultScope._instance_dict.copy()
    yield
    DefaultScope._instance_dict = before


@pytest.fixture(autouse=True)
def loading(monkeypatch):
    """Commands change how the process loads checkpoints."""
    from mmengine.runner import CheckpointLoader, checkpoint

    monkeypatch.setattr(checkpoint, 'load_from_http', checkpoint.load_from_http)
    monkeypatch.setattr(CheckpointLoader, '_schemes', CheckpointLoader._schemes.copy())
    monkeypatch.setenv('TORCH_FORCE_WEIGHTS_ONLY_LOAD', '0')


@pytest.fixture
def canary(tmp_path, monkeypatch):
    """A file that must not come to be, by whatever is run, or by the import of a module that lies on the path."""
    import sys
    from copyreg import _extension_cache, _extension_registry, _inverted_registry

    from tests.converters import hostile

    path = tmp_path / 'canary' / 'has_died'
    path.parent.mkdir()
    (path.parent / f'{hostile.CANARY}.py').write_text(hostile.EXEC)
    monkeypatch.setenv(hostile.CANARY, str(path))
    monkeypatch.syspath_prepend(str(path.parent))
    # A code that some other package of the process may have given to any function.
    monkeypatch.setitem(_inverted_registry, 240, ('os', 'system'))
    monkeypatch.setitem(_extension_registry, ('os', 'system'), 240)
    monkeypatch.setitem(_extension_cache, 240, os.system)
    yield path
    assert not path.exists() and hostile.CANARY not in sys.modules


@pytest.fixture(scope='session')
def processes():
    """processes(2).call(function, *args) -> what it returns on each of two gloo processes, which stay for the next."""
    from tests.processes import Processes

    groups = {}
    yield lambda world: groups.setdefault(world, Processes(world))
    for group in groups.values():
        group.end()


@pytest.fixture(scope='session')
def digits_root(tmp_path_factory):
    """A small digits dataset: 24 training and 6 validation pictures."""
    from demo.digits import DigitsSpec, generate

    return generate(tmp_path_factory.mktemp('data') / 'digits', DigitsSpec(train=24, val=6))


@pytest.fixture
def run_tool(monkeypatch, capsys):
    """Call the ``main`` of a file of tools/, or of the demo, in this process.

    run_tool('train', *args) -> (exit code, stderr)
    """
    import logging
    import runpy
    import sys
    from pathlib import Path

    def run(name, *args):
        root = Path(__file__).parent.parent
        path = root / 'demo' / '__main__.py' if name == 'demo' else root / 'tools' / f'{name}.py'
        monkeypatch.setattr(sys, 'argv', [str(path), *map(str, args)])
        # mmengine's loggers of earlier tests still hold those tests' closed streams.
        monkeypatch.setattr(logging, 'raiseExceptions', False)
        capsys.readouterr()
        try:
            runpy.run_path(str(path), run_name='__main__')
        except SystemExit as stop:
            return stop.code, capsys.readouterr().err
        return 0, capsys.readouterr().err

    return run


@pytest.fixture
def log_lines(tmp_path):
    """What mmengine's current logger was told so far in this test: log_lines() -> text."""
    import logging

    from mmengine.logging import MMLogger

    logger = MMLogger.get_instance(f'log_lines_of_{tmp_path}', log_level='INFO')  # the newest is the current one
    lines = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    logger.addHandler(handler)
    yield lambda: '\n'.join(lines)
    MMLogger._instance_dict.pop(logger.instance_name)
