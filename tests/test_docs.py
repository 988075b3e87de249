"""The pages of docs/ and the README against what they speak of: configs, tools, options and figures."""

import argparse
import doctest
import os
import pkgutil
import re
import shlex
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import torch
from mmengine import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, init_default_scope

from nfnet_mm.analysis.model_zoo import result_files
from nfnet_mm.engine import AGCOptimWrapper
from nfnet_mm.engine.total_batch import plan_accumulation
from nfnet_mm.recipes.transfer import COCO, NYU, VOC
from nfnet_mm.run import load_config

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / 'README.md', ROOT / 'CONTRIBUTING.md', *sorted((ROOT / 'docs').glob('*.md'))]
LEAVES = [path for path in (ROOT / 'configs').rglob('*.py') if '_base_' not in path.parts]


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)
def test_links_and_paths_exist(page):
    text = page.read_text()
    links = [link for link in re.findall(r'\]\(([^)#]+)', text) if '://' not in link]
    assert [link for link in links if not (page.parent / link).exists()] == []
    paths = re.findall(r'\b(?:demo/)?(?:configs|tools)/[\w/.]+\.(?:py|sh)\b', text)
    assert [path for path in paths if not (ROOT / path).is_file() and '/dataset_converters/' not in path] == []


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)
def test_names_of_the_package_exist(page):
    names = re.findall(r'`(nfnet_mm(?:\.\w+)+)', page.read_text())
    for name in {name for name in names if not name.split('.')[1][0].isupper()}:  # nfnet_mm.NFNet is a registered type
        pkgutil.resolve_name(name)


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)
def test_examples_run(page):
    assert doctest.testfile(str(page), module_relative=False).failed == 0


def options_of(tool):
    """The options of a file of tools/: of the command that it calls, or its own."""
    command = re.search(r"main\('([a-z-]+)'\)", tool.read_text())
    if command is None:
        return set(re.findall(r"'(--[a-z-]+)'", tool.read_text()))
    parser = argparse.ArgumentParser()
    import_module(f'nfnet_mm.commands.{command[1].replace("-", "_")}').add_arguments(parser)
    return {option for action in parser._actions for option in action.option_strings}


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)
def test_options_exist(page):
    for command in re.findall(r'^(?:python|bash|GPUS=\d+ bash) (tools/.*)$', page.read_text(), re.M):
        tool, options = command.split()[0], re.findall(r'(--[a-z-]+)', command.split('#')[0])
        known = options_of(ROOT / (tool if tool.endswith('.py') else 'tools/train.py'))
        assert set(options) <= known, command
        if 'slurm_train' in tool:  # PARTITION JOB CONFIG WORK_DIR
            assert len(command.split('#')[0].split()) == 5, command


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)
def test_commands_of_the_package_are_read(page):
    """Each ``python -m nfnet_mm COMMAND ...`` of a page has what the command asks for, and options that it takes."""
    start = r'^(?:python|torchrun --nproc_per_node=\d+) -m nfnet_mm (.*)$'
    for line in re.findall(start, page.read_text(), re.M):
        name, *words = shlex.split(line, comments=True)
        parser = argparse.ArgumentParser(exit_on_error=False)
        import_module(f'nfnet_mm.commands.{name.replace("-", "_")}').add_arguments(parser)
        parser.parse_args(words)


def test_every_config_is_documented():
    words = set(re.findall(r'\w+', ''.join(page.read_text() for page in PAGES)))
    assert len(LEAVES) > 90 and [path.stem for path in LEAVES if path.stem not in words] == []


def test_results_are_written_from_the_recipes():
    for page, text in result_files(ROOT).items():
        assert (ROOT / page).read_text() == text, 'run python tools/write_configs.py'


def test_the_total_batch_of_the_page():
    """The page's loop on its eight devices works out what its log line says, and any other is refused as it tells."""
    text = (ROOT / 'docs/README.md').read_text()
    scope = {}
    exec(re.search(r'```python\n(train_cfg.*?)```', text, re.S)[1], scope)
    batch, samples, devices, accumulated, rate = re.search(
        r'batch (\d+) = (\d+) samples x (\d+) devices x (\d+) accumulated; learning rate ([\d.]+)', text
    ).groups()
    cfg = Config.fromfile(ROOT / 'configs/mask_rcnn_nfnet_f0_fpn.py')
    assert scope['train_cfg'] == cfg.train_cfg and cfg.train_cfg.total_batch == int(batch)
    assert (cfg.train_dataloader.batch_size, cfg.optim_wrapper.optimizer.lr) == (int(samples), float(rate))
    assert plan_accumulation(int(batch), int(samples), int(devices)) == int(accumulated)


def test_test_commands_name_the_last_checkpoint():
    for name in ('detection', 'segmentation', 'depth'):
        config, last = re.search(
            r'test\.py (configs/\w+\.py) \S+/iter_(\d+)\.pth', (ROOT / f'docs/{name}.md').read_text()
        ).groups()
        cfg = Config.fromfile(ROOT / config)
        assert cfg.train_cfg.max_iters == int(last) and int(last) % cfg.default_hooks.checkpoint.interval == 0


def test_examples_of_the_readme(tmp_path):
    """The detector with its optimizer wrapper, and the classifier, build and fit together."""
    pytest.importorskip('mmdet')
    pytest.importorskip('mmpretrain')
    own, detector, classifier, wrapper = re.findall(r'```python\n(.*?)```', (ROOT / 'README.md').read_text(), re.S)
    (tmp_path / 'own.py').write_text(own)
    mine = load_config(str(tmp_path / 'own.py'))
    assert (mine.model.head.num_classes, mine.model.backbone.init_cfg.checkpoint) == (5, 'deepmind/F0')
    assert mine.train_dataloader.dataset.data_root == 'data/flowers/'
    cfg, classifier = Config.fromstring(detector + wrapper, '.py'), Config.fromstring(classifier, '.py')
    with torch.device('meta'):
        init_default_scope('mmdet')
        model = MODELS.build(cfg.model)
        wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
        init_default_scope('mmpretrain')
        classifier = MODELS.build(classifier.model)
    assert tuple(model.neck.in_channels) == model.backbone.out_channels
    assert not any(p.requires_grad for p in model.backbone.stages[0].parameters())
    assert type(wrapper) is AGCOptimWrapper and wrapper.agc == dict(clipping=0.01, eps=1e-3)
    assert classifier.backbone.out_channels == (classifier.head.fc.in_features,)


@pytest.fixture
def inherited(tmp_path, monkeypatch):
    """The page's config by inheritance, in a folder of its own, and the page's command in another."""
    pytest.importorskip('mmdet')
    text = (ROOT / 'docs/swapping.md').read_text()
    block = re.search(r'```python\n(_base_ = \[.*?)```', text, re.S).group(1)
    for folder in ('mine', 'elsewhere'):
        (tmp_path / folder).mkdir()
    file = tmp_path / 'mine' / 'retinanet.py'
    file.write_text(block.replace("'nfnet_mm::", f"'{ROOT}/configs/"))
    monkeypatch.chdir(tmp_path / 'elsewhere')
    return Config.fromfile(file)


def test_the_config_by_inheritance_is_what_the_command_writes(inherited, run_tool, tmp_path):
    text = (ROOT / 'docs/swapping.md').read_text()
    _, *args, weights = re.search(r'^python (tools/swap_backbone.py .*)', text, re.M).group(1).split()
    torch.save(whole_f0(), weights)
    assert run_tool('swap_backbone', *args, weights) == (0, '')
    os.remove(weights)  # a quarter of a gigabyte
    written = Config.fromfile('retinanet_nfnet_f0_fpn_1x_coco.py')
    start = written.model.backbone.init_cfg
    assert start.checkpoint == os.path.abspath(weights)
    start.checkpoint = weights
    assert written.model.backbone.pop('out_indices') == (0, 1, 2, 3)  # the default, which the example does not state
    assert inherited.model.to_dict() == written.model.to_dict()
    assert inherited.optim_wrapper.to_dict() == written.optim_wrapper.to_dict()
    assert inherited.model.backbone.frozen_stages == 1


def test_the_rates_of_the_page_are_those_of_the_recipes():
    text = (ROOT / 'docs/swapping.md').read_text()
    for name, task in {'Mask R-CNN, COCO': COCO, 'FCN, Pascal VOC': VOC, 'Depth, NYU': NYU}.items():
        cells = [cell.strip() for cell in re.search(rf'^\| {name} \|(.*)\|$', text, re.M).group(1).split('|')]
        batch, lr, same, decay, clipping = cells
        assert (int(batch), float(lr)) == (task.total_batch, task.lr)
        assert float(same.split(',')[0]) == pytest.approx(task.lr * 16 / task.total_batch)
        assert (0 if decay == 'none' else float(decay)) == task.weight_decay
        assert clipping == 'none' if task.agc is None else clipping.endswith(f'; {task.agc} here')


def whole_f0():
    """A classifier's state dict, without values of its own."""
    with torch.device('meta'):
        net = MODELS.build(dict(type='nfnet_mm.NFNet', arch='F0', out_indices=(4,)))
    return {f'backbone.{key}': torch.zeros(value.shape) for key, value in net.state_dict().items()}


def test_the_config_by_inheritance_builds(inherited):
    init_default_scope('mmdet')
    with torch.device('meta'):
        model = MODELS.build(inherited.model)
        wrapper = build_optim_wrapper(model, inherited.optim_wrapper)
    assert tuple(model.neck.in_channels) == model.backbone.out_channels
    assert {name for name, p in model.named_parameters() if p in wrapper.excluded} == {
        'bbox_head.retina_cls.weight',
        'bbox_head.retina_reg.weight',
    }


def its_own(copy):
    """The environment in which a copy of the tree imports itself, whatever PYTHONPATH says."""
    return dict(os.environ, PYTHONPATH=str(copy))


@pytest.fixture(scope='module')
def contributed(tmp_path_factory):
    """A copy of the tree after what CONTRIBUTING.md tells one to do."""
    copy = tmp_path_factory.mktemp('contributed')
    for name in ('nfnet_mm', 'configs', 'docs', 'tests', 'tools', 'setup.cfg', 'model-index.yml'):
        source = ROOT / name
        shutil.copytree(source, copy / name) if source.is_dir() else shutil.copy(source, copy)
    diffs = re.findall(r'```diff\n(.*?)```', (ROOT / 'CONTRIBUTING.md').read_text(), re.S)
    assert [len(re.findall(r'^\+(?!\+\+)', diff, re.M)) for diff in diffs] == [1, 1, 1]  # one row each
    command = ['git', 'apply', '-C1', '-']  # one line of the tree on either side is enough
    done = subprocess.run(command, input=''.join(diffs), text=True, cwd=copy, capture_output=True)
    assert done.returncode == 0, f'update the diffs of CONTRIBUTING.md: {done.stderr}'
    subprocess.run([sys.executable, 'tools/write_configs.py'], cwd=copy, check=True, env=its_own(copy))
    return copy


def test_a_contributed_recipe_is_a_config_that_builds(contributed):
    cfg = Config.fromfile(contributed / 'configs/imagenet/nfnet_tiny.py')
    assert (cfg.model.backbone.arch, cfg.model.backbone.drop_path_rate) == ('tiny', 0.1)
    assert cfg.model.head.in_channels == 512 and cfg.train_dataloader.batch_size == 2 * 128  # mixed two by two
    assert cfg.train_dataloader.dataset.pipeline[1].scale == 128
    assert '[nfnet_tiny](' in (contributed / 'docs/model_zoo.md').read_text()
    build = 'from nfnet_mm.models import NFNet; print(NFNet("tiny").out_channels, NFNet("tiny").out_strides)'
    done = subprocess.run(
        [sys.executable, '-c', build],
        cwd=contributed,
        capture_output=True,
        text=True,
        check=True,
        env=its_own(contributed),
    )
    assert done.stdout == '(64, 128, 256, 256) (4, 8, 16, 32)\n'


def test_what_is_contributed_passes_the_tests_of_its_kind(contributed):
    tests = (
        'converters/test_recognise.py',
        'config_files/test_config_files.py',
        'tasks/test_classification_configs.py',
    )
    chosen = '(tiny and keep) or up_to_date or the_table_has'
    command = [sys.executable, '-m', 'pytest', '-q', *(f'tests/{test}' for test in tests), '-k', chosen]
    done = subprocess.run(command, cwd=contributed, capture_output=True, text=True, env=its_own(contributed))
    assert done.returncode == 0 and '3 passed' in done.stdout, done.stdout


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)
def test_options_of_commands_exist(page):
    for name, words in re.findall(r'python -m nfnet_mm ([a-z-]+)(.*)', page.read_text()):
        parser = argparse.ArgumentParser()
        import_module(f'nfnet_mm.commands.{name.replace("-", "_")}').add_arguments(parser)
        known = {option for action in parser._actions for option in action.option_strings}
        assert set(re.findall(r'(?<![\w-])(--[a-z\d-]+)', words.partition('`')[0])) <= known, name + words
