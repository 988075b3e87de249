"""One page of HTML for people: text, tables, pictures and charts, readable without network and on a phone.

Nothing on it comes from elsewhere but pictures that are named by a path: they lie beside the page, or are embedded.
"""

import base64
import html
import io
import mimetypes
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from .errors import UserError, write_text

_INK = '#010203'  # what charts draw their text and axes in, to be replaced by the colour of the page's text
_STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --paper: #fff; --soft: #57606a; --line: #d5dae0; --card: #f5f7f9;
  --link: #0757ba; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e8ec; --paper: #15181c; --soft: #a2abb5; --line: #3a4149;
  --card: #1e2328; --link: #7db4ff; } }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; text-size-adjust: 100%; }
body { margin: 0 auto; max-width: 76rem; padding: 1.5rem clamp(1rem, 4vw, 3rem) 4rem; color: var(--ink);
  background: var(--paper); font: 1rem/1.55 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: clamp(1.5rem, 5vw, 2.1rem); line-height: 1.2; margin: 0 0 .5rem; }
h2 { font-size: 1.3rem; margin: 2.75rem 0 .75rem; padding-bottom: .3rem; border-bottom: 1px solid var(--line); }
h3 { font-size: 1.05rem; margin: 1.75rem 0 .5rem; }
p { margin: .5rem 0; max-width: 46rem; }
a { color: var(--link); }
code, pre { font: .9em/1.5 ui-monospace, monospace; }
pre { background: var(--card); border: 1px solid var(--line); border-radius: 6px; padding: .75rem 1rem;
  white-space: pre-wrap; }
.scroll { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; overflow-wrap: normal; }
caption, figcaption { color: var(--soft); font-size: .92rem; text-align: left; padding: .35rem 0; }
th, td { padding: .4rem .9rem; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; }
thead th { background: var(--card); }
.number { text-align: right; white-space: nowrap; }
dl { display: grid; grid-template-columns: minmax(8rem, max-content) 1fr; gap: .35rem 1.5rem; margin: 1rem 0; }
dt { color: var(--soft); }
dd { margin: 0; white-space: pre-wrap; }
@media (max-width: 34rem) { dl { grid-template-columns: 1fr; gap: 0; } dd { margin-bottom: .7rem; } }
figure { margin: 1rem 0; }
img, svg { display: block; max-width: 100%; height: auto; }
img { border-radius: 4px; background: var(--card); }
.grid { display: grid; gap: 1.25rem; grid-template-columns: repeat(auto-fill, minmax(min(100%, var(--cell)), 1fr)); }
.grid figure { margin: 0; }
.grid img, .grid svg { width: 100%; }
"""


class Picture(NamedTuple):
    """A picture to show.

    Attributes:
        path: its file.
        caption: stands below it.
        alt: says what is in it to those who cannot see it; by default the caption.
    """

    path: str | os.PathLike
    caption: str = ''
    alt: str = ''


class Page:
    """What is added is shown in that order; texts are plain, and escaped.

    Args:
        title: the page's heading, and its tab's.
        folder: where the page will lie. Pictures are named relative to it.
        embed: whether pictures are put into the page instead, so that it can be sent as one file.
    """

    def __init__(self, title: str, folder: str | os.PathLike = '.', embed: bool = False):
        self.title, self.folder, self.embed = title, Path(folder), embed
        self._parts: list[str] = []

    def section(self, title: str, level: int = 2) -> None:
        """A heading: of a section (2) or of a part of one (3)."""
        self._parts.append(f'<h{level}>{html.escape(title)}</h{level}>')

    def text(self, text: str) -> None:
        """A paragraph."""
        self._parts.append(f'<p>{html.escape(text)}</p>')

    def links(self, label: str, files: Mapping[str, str | os.PathLike]) -> None:
        """A paragraph of links to files: {what to call it: path}."""
        links = (f'<a href="{_address(self._relative(path))}">{html.escape(name)}</a>' for name, path in files.items())
        self._parts.append(f'<p>{html.escape(label)} {", ".join(links)}</p>')

    def code(self, text: str) -> None:
        """Lines as they are, such as a command."""
        self._parts.append(f'<pre>{html.escape(text)}</pre>')

    def facts(self, facts: Mapping[str, object]) -> None:
        """A list of what is said of each name."""
        rows = (f'<dt>{html.escape(name)}</dt><dd>{html.escape(str(fact))}</dd>' for name, fact in facts.items())
        self._parts.append(f'<dl>{"".join(rows)}</dl>')

    def table(self, header: Sequence[str], rows: Iterable[Sequence[object]], caption: str = '') -> None:
        """A table. A column that holds numbers alone, also as text such as '84.7 %', is set flush right."""
        cells = [[str(cell) for cell in row] for row in rows]
        number = [
            all(re.match(r'[-+±<>≤≥]?\s*\d', row[i]) or row[i] in '–-' for row in cells) for i in range(len(header))
        ]

        def line(tag: str, row: Sequence[str]) -> str:
            some = (
                f'<{tag}{" class=number" * right}>{html.escape(cell)}</{tag[:2]}>' for cell, right in zip(row, number)
            )
            return f'<tr>{"".join(some)}</tr>'

        head = f'<thead>{line("th scope=col", header)}</thead>'
        told = f'<caption>{html.escape(caption)}</caption>' if caption else ''
        body = ''.join(line('td', row) for row in cells)
        # what is wider than a phone is scrolled within its own box, by keyboard too
        box = f'<div class="scroll" role="region" tabindex="0" aria-label="{html.escape(caption or "table")}">'
        self._parts.append(f'{box}<table>{told}{head}<tbody>{body}</tbody></table></div>')

    def figure(self, path: str | os.PathLike, caption: str = '', alt: str = '') -> None:
        """One picture, in its own size at most."""
        self._parts.append(self._figure(Picture(path, caption, alt)))

    def grid(self, pictures: Iterable[Picture], width: float = 19) -> None:
        """Pictures side by side, as many as the window holds at a least width, in letters' heights."""
        self._grid(map(self._figure, pictures), width)

    def charts(self, charts: Mapping[str, Mapping[str, tuple[Sequence[float], Sequence[float]]]], x: str) -> None:
        """Line charts side by side.

        Args:
            charts: by title, by name of a line, its points as (x values, y values).
            x: what the x axes show.
        """
        self._grid((_line_chart(title, lines, x) for title, lines in charts.items()), 19)

    def drawing(self, figure: Any, caption: str, alt: str = '') -> None:
        """A figure of matplotlib, as lines and text; drawn within :func:`page_colours`, it takes the page's."""
        self._parts.append(_drawing(figure, caption, alt or caption))

    def _grid(self, cells: Iterable[str], width: float) -> None:
        self._parts.append(f'<div class="grid" style="--cell: {width}rem">{"".join(cells)}</div>')

    def html(self) -> str:
        """The page's text."""
        title = html.escape(self.title)
        head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        body = '\n'.join(self._parts)
        return (
            f'<!DOCTYPE html>\n<html lang="en">\n<head>{head}<link rel="icon" href="data:,">\n<title>{title}</title>\n'
            f'<style>{_STYLE}</style></head>\n<body>\n<main>\n<h1>{title}</h1>\n{body}\n</main>\n</body>\n</html>\n'
        )

    def write(self, name: str = 'index.html') -> Path:
        """Write the page into its folder, whole or not at all.

        Raises:
            UserError: it cannot be written.
        """
        target = self.folder / name
        write_text(target, self.html())
        return target

    def _relative(self, path: str | os.PathLike) -> str:
        return Path(os.path.relpath(path, self.folder)).as_posix()

    def _figure(self, picture: Picture) -> str:
        path, caption, alt = picture
        if self.embed:
            kind = mimetypes.guess_type(path)[0] or 'image/png'
            try:
                source = f'data:{kind};base64,{base64.b64encode(Path(path).read_bytes()).decode()}'
            except OSError as error:
                raise UserError(f'picture {str(path)!r} cannot be read: {error.strerror or error}') from None
        else:
            source = _address(self._relative(path))
        shown = f'<img src="{source}" alt="{html.escape(alt or caption or Path(path).stem)}" loading="lazy">'
        if not self.embed:
            shown = f'<a href="{source}">{shown}</a>'
        told = f'<figcaption>{html.escape(caption)}</figcaption>' if caption else ''
        return f'<figure>{shown}{told}</figure>'


def _address(path: str) -> str:
    """What a link names a relative path by; a colon in its first part would make that a scheme."""
    return f'./{quote(path)}' if ':' in path.partition('/')[0] else quote(path)


@contextmanager
def page_colours() -> Iterator[None]:
    """Let matplotlib draw text and axes in the colour of the page's text, which is light on dark in a dark window."""
    from matplotlib import rc_context

    inked = ('text.color', 'axes.labelcolor', 'axes.edgecolor', 'xtick.color', 'ytick.color')
    style: dict[Any, Any] = {**dict.fromkeys(inked, _INK), 'font.size': 9}
    with rc_context(style):
        yield


def _line_chart(title: str, lines: Mapping[str, tuple[Sequence[float], Sequence[float]]], x: str) -> str:
    from matplotlib.figure import Figure

    with page_colours():
        figure = Figure(figsize=(4.4, 2.9), layout='constrained')
        axis = figure.subplots()
        for name, (at, values) in lines.items():
            axis.plot(at, values, label=name, linewidth=1.4, marker='o' if len(at) < 20 else None, markersize=3)
        axis.set_xlabel(x)
        axis.grid(alpha=0.3)
        axis.spines[['top', 'right']].set_visible(False)
        if len(lines) > 1:
            axis.legend(frameon=False)
    ends = (f'{name} ends at {values[-1]:.4g}' for name, (_, values) in lines.items() if len(values))
    return _drawing(figure, title, f'{title}: {", ".join(ends)}')


def _drawing(figure: Any, caption: str, alt: str) -> str:
    """A figure of matplotlib as a part of the page."""
    from matplotlib import rc_context

    file = io.StringIO()
    with rc_context({'svg.fonttype': 'none', 'svg.hashsalt': caption}):  # two drawings must not share names of parts
        figure.savefig(
            file, format='svg', transparent=True, metadata=dict.fromkeys(('Date', 'Creator', 'Format', 'Type'))
        )
    drawn = file.getvalue().replace(_INK, 'currentColor')
    drawn = re.sub('<g id="[^"]*"', '<g', drawn[drawn.index('<svg') :])  # the same in all figures
    drawn = re.sub(r'(?<=<svg)[^>]*(?= viewBox)', f' role="img" aria-label="{html.escape(alt)}"', drawn)
    return f'<figure>{drawn}<figcaption>{html.escape(caption)}</figcaption></figure>'
