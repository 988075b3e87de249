"""What mkdocs.yml asks for that mkdocs has not: files outside docs/, pages of the API, formulas without a script."""

import base64
import html
import io
import posixpath
import re
from pathlib import Path

import griffe
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[1]
PAGES = {'CONTRIBUTING.md': 'contributing.md', 'CHANGELOG.md': 'changelog.md'}  # of the top, which are pages here too
# What the pages of api/ show: of a package what its ``__all__`` names, of a module what is defined there,
# and by a star every module of a package.
API = {
    'models': ['models', 'models.backbones.plan.plan_blocks', 'models.backbones.plan.BlockSpec']
    + ['models.backbones.plan.NFArch', 'models.backbones.arch.find_network', 'models.backbones.arch.network_names'],
    'layers': ['models.layers'],
    'engine': ['engine', 'engine.total_batch.TotalBatchTrainLoop', 'engine.sam.SAMHook']
    + ['engine.fully_shard.FullyShard', 'engine.checkpoint_hook.SafeCheckpointHook', 'engine.finite.FiniteWeightsHook']
    + ['engine.exact_resume.ExactResumeHook', 'engine.strict_load.StrictLoadHook', 'engine.hang.HangHook']
    + ['engine.rank_seed.RankSeedHook', 'engine.scalars_later.ScalarsLaterHook', 'engine.signals.StopOnSignalHook']
    + ['engine.data_workers.DataWorkersHook', 'engine.broken_pictures.BrokenPicturesHook']
    + ['engine.clipping_log.ClippingLogHook'],
    'converters': ['converters'],
    'tasks': ['tasks.classification', 'tasks.segmentation.transforms', 'tasks.depth'],
    'deploy': ['deploy.*', 'inference'],
    'analysis': ['analysis.*'],
    'swap': ['swap.swap.swap_config', 'swap.swap.backbone_hosts', 'swap.config_files', 'swap.last_layers'],
    'run': ['run', 'errors'],
}
_LINK = re.compile(r'(\]\(|^\[[^\]]+\]: )([^)#\s:]+)(?=[)#\s]|$)', re.MULTILINE)
_EXAMPLE = re.compile(r'^( *)>>> .*(?:\n *\S.*)*', re.MULTILINE)
_FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)


def on_config(config):
    """Leave out of the navigation the pages that are not written yet, of which it holds the places."""

    def written(entry):
        if isinstance(entry, list):
            return [one for one in map(written, entry) if one]
        if isinstance(entry, dict):
            return {title: one for title, below in entry.items() if (one := written(below))}
        made = entry in PAGES.values() or entry.startswith('api/')
        return entry if made or (Path(config.docs_dir) / entry).is_file() else None

    config.nav = written(config.nav)
    return config


def on_files(files, config):
    """Add the pages of the top and of the API, and every file outside docs/ that a page links to, as plain text."""
    for name, page in PAGES.items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / name)))
    for name, modules in API.items():
        text = ''.join(f'::: nfnet_mm.{module}\n\n' for entry in modules for module in _expanded(entry))
        files.append(File.generated(config, f'api/{name}.md', content=f'# {name.capitalize()}\n\n{text}'))
    linked = {target for page in files.documentation_pages() for target in _outside(page).values()}
    for target in sorted(linked - set(PAGES)):
        if (ROOT / target).is_file():  # mkdocs warns of what is not
            files.append(File.generated(config, _place(target), abs_src_path=str(ROOT / target)))
    return files


def on_page_markdown(markdown, page, config, files):
    """Lead links that leave docs/ to where their files are in the site."""
    outside, here = _outside(page.file, markdown), posixpath.dirname(page.file.src_uri)

    def there(match):
        target = outside.get(match[2])
        return match[0] if target is None else match[1] + posixpath.relpath(_place(target), here or '.')

    return _LINK.sub(there, markdown)


def on_page_content(content, page, config, files):
    """Set the formulas as pictures, with their text for whoever does not see them."""
    try:
        return _FORMULA.sub(lambda match: _set(html.unescape(match[2]), match[1] == 'div'), content)
    except ValueError as error:
        told = f"{page.file.src_uri}: a formula has what Matplotlib's mathtext cannot set: {error}"
        raise PluginError(told) from None


def _expanded(entry):
    package, star, _ = entry.partition('.*')
    paths = sorted((ROOT / 'nfnet_mm' / package).glob('[a-z]*')) if star else ()
    return [f'{package}.{path.stem}' for path in paths if path.suffix in ('', '.py')] or [package]


def _outside(file, markdown=None):
    """The relative links of a page that lead to files outside docs/, with their paths in the repository."""
    folder = Path(file.abs_src_path).parent if file.abs_src_path else ROOT / 'docs'
    found = {}
    for _, link in _LINK.findall(file.content_string if markdown is None else markdown):
        target = posixpath.normpath(posixpath.join(folder.relative_to(ROOT).as_posix(), link))
        if folder == ROOT or not target.startswith('docs/'):
            found[link] = target
    return found


def _place(target):
    """Where a file of the repository is in the site. Python files end in .txt, which browsers show and do not save."""
    if target.startswith('docs/'):
        return target.removeprefix('docs/')
    return PAGES.get(target) or f'files/{target}.txt'


def _set(formula, display):
    """LaTeX as an SVG picture in HTML, as high as the text around it."""
    from matplotlib import rc_context
    from matplotlib.font_manager import FontProperties
    from matplotlib.mathtext import math_to_image

    size, picture = 40, io.BytesIO()
    text = ' '.join(re.sub(r'\\[lr]Vert\b', r'\\Vert', formula).split())
    if display:
        text = text.replace(r'\frac', r'\dfrac')
    with rc_context({'mathtext.fontset': 'stix', 'savefig.transparent': True, 'svg.hashsalt': 'nfnet_mm'}):
        depth = math_to_image(f'${text}$', picture, prop=FontProperties(size=size), format='svg')
    svg = picture.getvalue().decode()
    width = float(re.search(r'width="([\d.]+)pt"', svg)[1])
    svg = re.sub(r'<metadata>.*?</metadata>|<!--.*?-->|<!DOCTYPE.*?>', '', svg, flags=re.DOTALL)
    data = base64.b64encode(re.sub(r'\s*\n\s*', ' ', svg).encode()).decode()
    style = f'width:{1.1 * width / size:.2f}em' + ('' if display else f';vertical-align:{-1.1 * depth / size:.2f}em')
    image = f'<img class="formula" alt="{html.escape(formula)}" style="{style}" src="data:image/svg+xml;base64,{data}">'
    return f'<div class="formula">{image}</div>' if display else image


class Docstrings(griffe.Extension):
    """Docstrings as they are written here, in Markdown: examples as blocks of code, roles as names."""

    def on_object(self, *, obj, **kwargs):
        """Rewrite the docstring of one function, class or module."""
        if obj.docstring:
            text = re.sub(r':\w+:`~?([^`]+)`', r'`\1`', obj.docstring.value)
            obj.docstring.value = _EXAMPLE.sub(r'\n\1```pycon\n\g<0>\n\1```\n', text)
