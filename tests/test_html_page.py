"""The page writer, read by a parser and by a browser."""

import base64
from html.parser import HTMLParser

import numpy as np
import pytest

from nfnet_mm.errors import UserError
from nfnet_mm.html_page import Page, Picture

from .browser import measure

cv2 = pytest.importorskip('cv2')
VOID = ('meta', 'link', 'img', 'path', 'use', 'rect')


class Reader(HTMLParser):
    """What stands in a page: (tag, attributes) of every element and its text; wrong nesting is an error."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.open, self.words, self.cells = [], [], [], []
        self.feed(page.html())
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)
        if self.open[-1:] == ['td']:
            self.cells.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture
def page(tmp_path):
    """A page of everything there is, in a folder with two pictures."""
    noise = np.random.default_rng(0).integers(0, 256, (90, 1600, 3), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / 'a: 1?.png'), noise[:, :120])
    (tmp_path / 'more').mkdir()
    cv2.imwrite(str(tmp_path / 'more/wide.png'), noise)
    page = Page('A <title> & more', tmp_path)
    page.section('Figures')
    page.text('1 < 2 ' + 'w' * 300)
    page.table(['network', 'top-1', 'note', *['more'] * 9], [['<b>', 83.5, 'x', *[12345678] * 9]], 'what it shows')
    page.grid([Picture(tmp_path / 'a: 1?.png', 'noise "1"')] * 5)
    page.figure(tmp_path / 'more/wide.png', alt='wide noise')
    page.charts(
        {'loss': dict(loss=([0, 50, 100], [3.0, 2.0, 1.25])), 'both': dict(a=([0, 1], [0, 1]), b=([0], [2]))}, 'step'
    )
    page.facts({'command': 'python ' + '/very/long/path' * 40})
    page.code('one\ntwo')
    page.links('Files:', {'a list': tmp_path / 'more/a b.json'})
    return page


def test_what_a_parser_reads(page, tmp_path):
    read = Reader(page)
    assert 'A <title> & more' in read.words and read.cells[:3] == ['<b>', '83.5', 'x'] and 'one\ntwo' in read.words
    assert [cell.get('class') for cell in read.all('td')][:4] == [None, 'number', None, 'number']
    assert [(one['src'], one['alt']) for one in read.all('img')] == [
        *[('./a%3A%201%3F.png', 'noise "1"')] * 5,
        ('more/wide.png', 'wide noise'),
    ]
    assert read.all('a')[-1] == {'href': 'more/a%20b.json'}
    told = [one['aria-label'] for one in read.all('svg')]
    assert told == ['loss: loss ends at 1.25', 'both: a ends at 1, b ends at 2']
    names = [one['id'] for _, one in read.tags if 'id' in one]
    assert len(names) == len(set(names)) > 0
    assert not read.all('script') and [one.get('href') for one in read.all('link')] == ['data:,']


def test_embedded_pictures(tmp_path):
    page = Page('one file', tmp_path / 'elsewhere', embed=True)
    (tmp_path / 'a.png').write_bytes(b'picture')
    page.figure(tmp_path / 'a.png')
    (source,) = (one['src'] for one in Reader(page).all('img'))
    assert base64.b64decode(source.removeprefix('data:image/png;base64,')) == b'picture'
    with pytest.raises(UserError, match="picture '.*none.png' cannot be read: No such file"):
        page.figure(tmp_path / 'none.png')
    with pytest.raises(UserError, match="elsewhere/index.html' was not written: No such file"):
        page.write()


@pytest.mark.parametrize('width, dark', [(390, False), (1280, True)])
def test_what_a_browser_shows(page, width, dark):
    seen = measure(page.write(), width, dark=dark)
    assert seen['window'] == width and seen['width'] <= width, 'nothing is wider than the window'
    assert [one[:2] for one in seen['pictures']] == [[120, 90]] * 5 + [[1600, 90]], 'all are loaded'
    assert all(50 < one[2] <= width for one in seen['pictures'])
    assert len(seen['drawings']) == 2 and min(seen['drawings']) > 250
    assert all(name.startswith(('file:', 'data:')) for name in seen['loaded'])
    brightness = [sum(map(int, seen[name][4:-1].split(','))) for name in ('ink', 'paper')]
    assert (brightness[0] > brightness[1]) == dark and abs(brightness[0] - brightness[1]) > 500
