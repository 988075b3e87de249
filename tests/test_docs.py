"""The pages of docs/ and the README against what they speak of: configs, tools, options and figures."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, init_default_scope

from nfnet_mm.engine import AGCOptimWrapper
from nfnet_mm.engine.total_batch import plan_accumulation
from nfnet_mm.recipes import IMAGENET

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / 'README.md', *sorted((ROOT / 'docs').glob('*.md'))]
LEAVES = [path for path in (ROOT / 'configs').rglob('*.py') if not {'_base_', 'demo'} & set(path.parts)]


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)
def test_links_and_paths_exist(page):
    text = page.read_text()
    links = [link for link in re.findall(r'\]\(([^)#]+)', text) if '://' not in link]
    assert [link for link in links if not (page.parent / link).exists()] == []
    paths = re.findall(r'\b(?:configs|tools)/[\w/.]+\.(?:py|sh)\b', text)
    assert [path for path in paths if not (ROOT / path).is_file() and '/dataset_converters/' not in path] == []


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)
def test_options_exist(page):
    for command in re.findall(r'^(?:python|bash|GPUS=\d+ bash) (tools/.*)$', page.read_text(), re.M):
        tool, options = command.split()[0], re.findall(r'(--[a-z-]+)', command.split('#')[0])
        source = (ROOT / tool).read_text() if tool.endswith('.py') else (ROOT / 'tools/train.py').read_text()
        assert all(f"'{option}'" in source for option in options), command
        if 'slurm_train' in tool:  # PARTITION JOB CONFIG WORK_DIR
            assert len(command.split('#')[0].split()) == 5, command


def test_every_config_is_documented():
    words = set(re.findall(r'\w+', ''.join(page.read_text() for page in PAGES)))
    assert len(LEAVES) > 90 and [path.stem for path in LEAVES if path.stem not in words] == []


@pytest.mark.parametrize('name', ['detection', 'segmentation', 'depth'])
def test_tables_hold_the_figures_of_the_configs(name):
    """Each figure of the papers stands in the config's docstring too."""
    rows = re.findall(r'^\| \[(\w+)\]\([^)]+\) \| (.*) \|$', (ROOT / f'docs/{name}.md').read_text(), re.M)
    assert len(rows) >= 6
    for config, cells in rows:
        figures = re.findall(r'\d*\.\d+', cells)
        docstring = (ROOT / f'configs/{config}.py').read_text().split('"""')[1]
        assert [figure for figure in figures if not re.search(rf'(?<!\d){re.escape(figure)}', docstring)] == []
        assert figures or 'neither paper' in docstring


def test_imagenet_table_holds_the_published_figures():
    table, text = {}, (ROOT / 'docs/imagenet.md').read_text()
    for name, *figures in re.findall(r'^\| `(\w+_15e_batch\d+)` \| (\S+) \| (\S+) \|', text, re.M):
        table.update({f'{kind}_{name}': figure for kind, figure in zip(('nf', 'bn'), figures)})
    for name, *rows in re.findall(r'^\| `finetune`, `(\w+)` at 224 / 320 / 384 px \| (.+?) \| (.+?) \|', text, re.M):
        for kind, figures in zip(('nf', 'bn'), rows):
            table.update(
                {
                    f'finetune_{kind}_{name}_{size}px': figure
                    for size, figure in zip((224, 320, 384), figures.split(' / '))
                }
            )
    assert table == {name: str(row.top1) for name, row in IMAGENET.items() if re.search('15e|finetune_.._', name)}
    assert len(table) == 30


def test_configs_state_the_published_figures():
    for name, accuracy in {name: row.accuracy for name, row in IMAGENET.items() if row.accuracy}.items():
        comment = re.search(r'^# Paper.*', (ROOT / f'configs/imagenet/{name}.py').read_text(), re.M)[0]
        stated = re.search(r'top-1 (?:/ top-5 )?(\d+\.\d)(?: / (\d+\.\d))?', comment)
        assert [float(figure) for figure in stated.groups() if figure] == [
            figure for figure in (accuracy.top1, accuracy.top5) if figure
        ], name


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
    for page in ('imagenet/nfnet_f0', 'mask_rcnn_nfnet_f0_fpn', 'fcn_nf_resnet50_voc', 'depth_nf_resnet50_nyu'):
        cfg = Config.fromfile(ROOT / f'configs/{page}.py')
        name = {'i': 'imagenet', 'm': 'detection', 'f': 'segmentation', 'd': 'depth'}[page[0]]
        batch, samples, one = re.search(
            r'Batch\s(\d+)(?: at 1024 px)?: (\d+) images.*?(\d+) times\s+on\s+one',
            (ROOT / f'docs/{name}.md').read_text(),
            re.S,
        ).groups()
        assert (cfg.train_cfg.total_batch, cfg.train_dataloader.batch_size) == (int(batch), int(samples)), name
        assert plan_accumulation(int(batch), int(samples), 1) == int(one), name


def test_test_commands_name_the_last_checkpoint():
    for name in ('detection', 'segmentation', 'depth'):
        config, last = re.search(
            r'test\.py (configs/\w+\.py) \S+/iter_(\d+)\.pth', (ROOT / f'docs/{name}.md').read_text()
        ).groups()
        cfg = Config.fromfile(ROOT / config)
        assert cfg.train_cfg.max_iters == int(last) and int(last) % cfg.default_hooks.checkpoint.interval == 0


def test_examples_of_the_readme():
    """The detector with its optimizer wrapper, and the classifier, build and fit together."""
    pytest.importorskip('mmdet')
    pytest.importorskip('mmpretrain')
    detector, classifier, wrapper = re.findall(r'```python\n(.*?)```', (ROOT / 'README.md').read_text(), re.S)
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


def test_the_config_by_inheritance_loads(tmp_path):
    block = re.search(r'```python\n(_base_ = \[.*?)```', (ROOT / 'docs/swapping.md').read_text(), re.S).group(1)
    file = tmp_path / 'retinanet.py'
    file.write_text(block.replace("'./_base_", f"'{ROOT}/configs/_base_"))
    cfg = Config.fromfile(file)
    assert (cfg.model.backbone.type, cfg.model.neck.in_channels) == ('nfnet_mm.NFNet', [256, 512, 1536, 1536])
    assert (cfg.optim_wrapper.type, cfg.optim_wrapper.optimizer.type) == ('nfnet_mm.AGCOptimWrapper', 'SGD')


def test_the_swap_of_the_page(tmp_path):
    text = (ROOT / 'docs/swapping.md').read_text()
    command = re.search(r'^python (tools/swap_backbone.py .*?) --weights', text, re.M)
    done = subprocess.run(
        [sys.executable, *command.group(1).replace('tools', f'{ROOT}/tools').split()],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / 'retinanet_nfnet_f0_fpn_1x_coco.py').is_file()
