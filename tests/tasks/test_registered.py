"""The types that the tasks register are those by which the registry finds the tasks."""

from importlib import import_module

import pytest

from nfnet_mm import registry


@pytest.mark.parametrize(
    'task, framework', [('classification', 'mmpretrain'), ('depth', 'mmseg'), ('segmentation', 'mmcv')]
)
def test_the_table_of_types_is_what_a_task_registers(task, framework):
    pytest.importorskip(framework)
    folder = import_module(f'nfnet_mm.tasks.{task}').__name__
    registries = [value for value in vars(registry).values() if isinstance(value, registry.Registry)]
    types = {name: kind for one in registries for name, kind in one.module_dict.items()}
    registered = {name for name, kind in types.items() if kind.__module__.startswith(f'{folder}.')}
    assert registered == {name for name, module in registry.TASK_TYPES.items() if module == folder} != set()
