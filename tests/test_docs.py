"""The pages of docs/ and the README against what they speak of: configs, tools, options and figures."""
import re
import subprocess
import sys
from pathlib import Path

import pytest
from mmengine import Config

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
    text = ''.join(page.read_text() for page in PAGES)
    # the BatchNorm twins and the pre-trainings by their patterns
    missing = [path.stem for path in LEAVES
               if path.stem not in text and not re.match('(bn|finetune_bn|pretrain)_', path.stem)]
    assert missing == []


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


def test_imagenet_table_holds_the_figures_of_the_configs():
    text = (ROOT / 'docs/imagenet.md').read_text()
    folder = ROOT / 'configs/imagenet'
    for size in ('1024', '8', '4'):
        nf, bn = re.search(rf'resnet50_15e_batch{size}` \| (\S+) \| (\S+) \|', text).groups()
        for kind, figure in (('nf', nf), ('bn', bn)):
            assert f'top-1 {figure}' in (folder / f'{kind}_resnet50_15e_batch{size}.py').read_text()
    nf, bn = re.search(r'224 / 320 / 384 px \| (.+?) \| (.+?) \|', text).groups()
    for kind, figures in (('nf', nf), ('bn', bn)):
        for size, figure in zip((224, 320, 384), figures.split(' / ')):
            assert f'top-1 {figure}' in (folder / f'finetune_{kind}_resnet50_{size}px.py').read_text()


def test_the_config_by_inheritance_loads(tmp_path):
    block = re.search(r'```python\n(_base_ = \[.*?)```', (ROOT / 'docs/swapping.md').read_text(), re.S).group(1)
    file = tmp_path / 'retinanet.py'
    file.write_text(block.replace("'./_base_", f"'{ROOT}/configs/_base_"))
    cfg = Config.fromfile(file)
    assert (cfg.model.backbone.type, cfg.model.neck.in_channels) == ('nfnet_mm.NFNet', [256, 512, 1536, 1536])
    assert (cfg.optim_wrapper.type, cfg.optim_wrapper.optimizer.type) == ('nfnet_mm.AGCOptimWrapper', 'SGD')


def test_the_swap_of_the_page(tmp_path):
    command = re.search(r'^python (tools/swap_backbone.py .*?) --weights', (ROOT / 'docs/swapping.md').read_text(), re.M)
    done = subprocess.run([sys.executable, *command.group(1).replace('tools', f'{ROOT}/tools').split()], cwd=tmp_path,
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / 'retinanet_nfnet_f0_fpn_1x_coco.py').is_file()
