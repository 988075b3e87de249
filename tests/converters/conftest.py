"""What the tests of downloads share."""

import pytest

from nfnet_mm.converters.hub import download
from tests.converters.web import Web


@pytest.fixture
def web():
    web = Web()
    yield web
    web.close()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty folder to keep downloads in, no proxies, and no pause before another try."""
    for name in ('http_proxy', 'https_proxy', 'all_proxy', 'HTTP_PROXY', 'HTTPS_PROXY', 'ALL_PROXY', 'HF_ENDPOINT'):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'torch'))
    monkeypatch.setattr(download, 'PAUSE', 0.01)
    return tmp_path / 'torch/hub/checkpoints/nfnet_mm'
