"""The documentation as a site, built as `make docs` builds it, in a process that cannot open a connection."""

import inspect
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from pkgutil import resolve_name
from urllib.parse import unquote, urlsplit

import pytest
import yaml

from nfnet_mm.registry import own_types

pytest.importorskip('material', reason='needs mkdocs-material: pip install "nfnet_mm[docs]"')
pytest.importorskip('mkdocstrings', reason='needs mkdocstrings: pip install "nfnet_mm[docs]"')

ROOT = Path(__file__).parents[1]
CHROMIUM = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None)
BUILD = """
import socket, sys
def refuse(*args, **kwargs):
    sys.exit('the build asks the network')
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
from mkdocs.__main__ import cli
cli()
"""
# What users and their scripts rely on.
CONTRACT = """
    models: NFNet NFResNet NFRegNet BNResNet FixupResNet SkipInitResNet BNNFNet
    models.backbones.plan: plan_blocks
    models.layers: standardize_weight activation_gain WSConv2d
    engine: AGCOptimWrapper AmpAGCOptimWrapper NFOptimWrapperConstructor WarmupEMA adaptive_clip_grad_
    engine.sam: SAMHook
    engine.total_batch: TotalBatchTrainLoop
    converters: from_deepmind from_timm to_timm NFPretrained load_weights convert_file
    tasks.classification: NFClsHead
    tasks.depth: UpProjectionHead BerHuLoss
    deploy.fold: fold
    swap.swap: swap_config
    run: load_config train test
"""
NAMES = [
    f'nfnet_mm.{module.strip()}.{name}'
    for module, names in (line.split(':') for line in CONTRACT.strip().splitlines())
    for name in names.split()
]


class Page(HTMLParser):
    """What one page links to, loads and can be led to, and its text by element."""

    def __init__(self, path):
        super().__init__()
        self.links, self.loads, self.anchors, self.images = [], [], {''}, []
        self.feed(path.read_text())

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.anchors |= {attrs.get('id'), attrs.get('name')}
        if tag == 'a' and 'href' in attrs:
            self.links.append(attrs['href'])
        if tag == 'link' and attrs.get('rel') not in ('canonical', 'prev', 'next'):
            self.loads.append(attrs['href'])
        if tag in ('script', 'img', 'iframe', 'source', 'object', 'embed', 'video') and attrs.get('src'):
            self.loads.append(attrs['src'])
        if tag == 'img':
            self.images.append(attrs)


@pytest.fixture(scope='module')
def site(tmp_path_factory):
    out = tmp_path_factory.mktemp('site')
    command = [sys.executable, '-c', BUILD, 'build', '--strict', '--quiet', '--site-dir', str(out)]
    env = dict(os.environ, NO_MKDOCS_2_WARNING='1', PYTHONPATH=str(ROOT))
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


@pytest.fixture(scope='module')
def pages(site):
    return {path: Page(path) for path in sorted(site.rglob('*.html'))}


def test_every_link_leads_somewhere(pages, site):
    broken = []
    for path, page in pages.items():
        for link in [*page.links, *page.loads]:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc or path.name == '404.html':  # its links begin at a server's root
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            target = target / 'index.html' if target.is_dir() else target
            anchors = pages[target].anchors if target in pages else {unquote(parts.fragment)}
            if not target.is_file() or site.resolve() not in target.parents or unquote(parts.fragment) not in anchors:
                broken.append(f'{path.relative_to(site)}: {link}')
    assert len(pages) > 30 and broken == []


def test_nothing_is_loaded_from_elsewhere(pages, site):
    elsewhere = [
        f'{path.relative_to(site)}: {load}'
        for path, page in pages.items()
        for load in page.loads
        if load.startswith('//') or urlsplit(load).scheme not in ('', 'data')
    ]
    assert elsewhere == []
    styles = ''.join(path.read_text() for path in site.rglob('*.css'))
    assert re.findall(r'(?:@import|url\()\s*["\']?(?:https?:)?//', styles) == []


def test_every_page_is_in_the_navigation(site):
    def leaves(node):
        if isinstance(node, str):
            return [node]
        return [leaf for child in (node.values() if isinstance(node, dict) else node) for leaf in leaves(child)]

    text = re.sub(r'!\S+', '', (ROOT / 'mkdocs.yml').read_text())
    listed = leaves(yaml.safe_load(text)['nav'])
    assert len(listed) == len(set(listed))
    assert {path.name for path in (ROOT / 'docs').glob('*.md')} <= set(listed), 'add the page to nav in mkdocs.yml'


@pytest.mark.parametrize('name', NAMES)
def test_the_api_shows_a_name_with_its_signature(name, site):
    thing = resolve_name(name)
    text = next((found for page in (site / 'api').glob('*.html') if f'id="{name}"' in (found := page.read_text())), '')
    assert text, f'{name} is on no page of the API'
    block = re.search(rf'id="{re.escape(name)}".*?<pre>(.*?)</pre>', text, re.S)[1]
    signature = re.sub(r'<[^>]+>', '', block)
    function = thing.__init__ if inspect.isclass(thing) else thing
    parameters = [one for one in inspect.signature(function).parameters if one not in ('self', 'args', 'kwargs')]
    assert signature.startswith(name.rpartition('.')[2] + '(')
    assert [one for one in parameters if not re.search(rf'\b{one}\b', signature)] == []


def test_the_api_shows_every_registered_type(site):
    text = ''.join(page.read_text() for page in (site / 'api').glob('*.html'))
    assert [name for name in own_types() if not re.search(rf'id="nfnet_mm\.[\w.]*\b{name}"', text)] == []


def test_formulas_are_pictures_with_their_text(site, pages):
    formulas = [image for image in pages[site / 'how_it_works.html'].images if image.get('class') == 'formula']
    written = re.sub(r'```.*?```|`[^`]*`', '', (ROOT / 'docs/how_it_works.md').read_text(), flags=re.S)
    found = re.findall(r'\$\$(.+?)\$\$|\$(.+?)\$', written, re.S)
    plain = [' '.join((one or other).split()) for one, other in found]
    assert len(plain) > 50 and [' '.join(image['alt'].split()) for image in formulas] == plain
    assert all(image['src'].startswith('data:image/svg+xml;base64,') for image in formulas)
    left = re.compile(r'class="arithmatex"|\\frac|\\sqrt')
    assert [path.name for path in pages if left.search(re.sub(r'alt="[^"]*"', '', path.read_text()))] == []


@pytest.mark.skipif(CHROMIUM is None, reason='no Chromium here')
def test_the_search_works_from_a_disk(site):
    """Typed into the page as a browser opens it, without a server: the page of what is asked for is found."""
    address = (site / 'index.html').as_uri() + '?q=stochastic'
    command = [CHROMIUM, '--headless', '--no-sandbox', '--disable-gpu', '--virtual-time-budget=20000', '--dump-dom']
    done = subprocess.run([*command, address], capture_output=True, text=True, timeout=120)
    results = re.findall(r'<a href="([^"]*)" class="md-search-result__link"', done.stdout)
    assert any('how_it_works.html' in link for link in results), results
