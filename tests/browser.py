"""A page as a browser shows it: headless Chromium, where there is one."""

import html
import json
import re
import shutil
import subprocess

import pytest

# Run in a copy of the page: every picture is loaded, though it may be below the window, and what is shown is measured.
_MEASURE = """<script>addEventListener('load', async () => {
  const pictures = [...document.images];
  pictures.forEach(one => one.loading = 'eager');
  await Promise.all(pictures.map(one => one.decode().catch(() => 0)));
  const page = document.documentElement;
  parent.postMessage(JSON.stringify({
    window: innerWidth, width: page.scrollWidth, height: page.scrollHeight,
    pictures: pictures.map(one => [one.naturalWidth, one.naturalHeight, one.getBoundingClientRect().width]),
    drawings: [...document.querySelectorAll('svg')].map(one => one.getBoundingClientRect().width),
    ink: getComputedStyle(document.body).color, paper: getComputedStyle(document.body).backgroundColor,
    loaded: performance.getEntriesByType('resource').map(one => one.name),
  }), '*');
})</script>"""
# Chromium's own window is not as narrow as a phone; a frame in it is.
_FRAME = """<script>addEventListener('message', told => document.documentElement.dataset.measured = told.data)</script>
<iframe src="measured.html" style="border: 0; width: {}px; height: {}px"></iframe>"""


def measure(page, width, height=900, dark=False):
    """What Chromium measures of a page's file in a window of that size, in pixels; skips the test where it is not."""
    program = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None)
    if program is None:
        pytest.skip('there is no Chromium to look at the page with')
    copy, frame = page.with_name('measured.html'), page.with_name('frame.html')
    copy.write_text(page.read_text().replace('</body>', f'{_MEASURE}</body>'))
    frame.write_text(_FRAME.format(width, height))
    options = ['--headless', '--no-sandbox', '--disable-gpu', '--hide-scrollbars', '--virtual-time-budget=10000']
    options += ['--blink-settings=preferredColorScheme=0'] * dark
    command = [program, *options, '--window-size=1600,1200', '--dump-dom', frame.as_uri()]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=120)
    copy.unlink()
    frame.unlink()
    found = re.search('data-measured="(.*?)"', shown.stdout)
    assert found, shown.stderr
    return json.loads(html.unescape(found[1]))
