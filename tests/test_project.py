"""What stands around the code, held against the code: licence, citation, hooks, workflows, metadata."""

import configparser
import re
from pathlib import Path

import pytest
import yaml

import nfnet_mm

ROOT = Path(__file__).parents[1]
SETUP = configparser.ConfigParser()
SETUP.read(ROOT / 'setup.cfg')
PINS = dict(re.findall(r'^([\w-]+)==(\S+)', (ROOT / 'requirements/known_good.txt').read_text(), re.M))


def test_licence_and_citation():
    assert (ROOT / 'LICENSE').read_text().split()[:4] == ['Apache', 'License', 'Version', '2.0,']
    citation = yaml.safe_load((ROOT / 'CITATION.cff').read_text())
    assert citation['version'] == nfnet_mm.__version__
    assert citation['license'] == SETUP['metadata']['license'] == 'Apache-2.0'
    papers = [citation['preferred-citation'], *citation['references']]
    assert [paper['url'][-10:] for paper in papers] == ['2102.06171', '2101.08692']


def test_changelog_begins_with_this_version():
    assert re.search(r'^## (\S+)', (ROOT / 'CHANGELOG.md').read_text(), re.M)[1] == nfnet_mm.__version__


def test_hooks_run_the_pinned_tools():
    hooks = yaml.safe_load((ROOT / '.pre-commit-config.yaml').read_text())['repos'][0]['hooks']
    pinned = {need for hook in hooks for need in hook.get('additional_dependencies', ())}
    assert pinned == {f'ruff=={PINS["ruff"]}'}
    lint = re.search(r'^lint:.*\n((?:\t.*\n)+)', (ROOT / 'Makefile').read_text(), re.M)[1]
    assert {hook['id'].split('-')[0] for hook in hooks} == set(re.findall(r'bin/(\w+)', lint)) == {'ruff', 'mypy'}
    assert re.search(r'^make lint$', (ROOT / '.ci/run').read_text(), re.M)


@pytest.mark.parametrize('extra', ['onedl', 'openmmlab'])
def test_workflows_test_every_python_with_both_distributions(extra):
    job = yaml.safe_load((ROOT / '.github/workflows/test.yml').read_text())['jobs'][extra]
    said = re.findall(r'Python :: (\d\.\d+)', SETUP['metadata']['classifiers'])
    assert job['strategy']['matrix']['python'] == said
    commands = ' '.join(step.get('run', '') for step in job['steps'])
    if extra == 'openmmlab':
        assert '-e .[openmmlab,test]' in commands
    else:
        assert all(f'{extra}-{name}' in PINS for name in ('mmengine', 'mmcv', 'mmdetection', 'mmsegmentation'))
        assert re.findall(r'make PYTHON=python (\w+)', commands) == ['lint', 'test']
