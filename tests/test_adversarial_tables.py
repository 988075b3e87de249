"""The tables of tests/adversarial know every public type: a new one has to be put through the same tests."""

from importlib import import_module
from pathlib import Path

import pytest

from nfnet_mm import registry

FOLDER = Path(__file__).parent / 'adversarial'


def test_every_registered_type_is_in_a_table():
    for package in ('classification', 'depth', 'segmentation'):
        pytest.importorskip({'classification': 'mmpretrain'}.get(package, 'mmseg'))
        import_module(f'nfnet_mm.tasks.{package}')
    text = ''.join(path.read_text() for path in FOLDER.glob('*.py'))
    registries = {name: own for name, own in vars(registry).items() if isinstance(own, registry.Registry)}
    assert len(registries) >= 10
    del registries['MODEL_WRAPPERS']  # for several processes, with tests of their own
    for name, own in registries.items():
        own.import_from_location()
        for kind in own.module_dict:
            assert f'nfnet_mm.{kind}' in text or f"'{kind}'" in text, (
                f'{kind} of {name} is in no table of tests/adversarial: add a row'
            )
