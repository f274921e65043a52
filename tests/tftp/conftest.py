from collections.abc import AsyncIterator

import pytest

from pxeboot.tftp import transfer as transfer_module
from pxeboot.tftp.transfer import TftpLimits
from tests.tftp.site import Client, Site, started


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """This computer may be too busy for its clients to be in time, who are to be sent nothing twice."""
    monkeypatch.setattr(transfer_module, "FIRST_WAIT_S", 0.5)
    monkeypatch.setattr(transfer_module, "MIN_WAIT_S", 0.5)


@pytest.fixture(params=[False, True], ids=["port per server", "single port"])
async def site(request: pytest.FixtureRequest, unhurried: None) -> AsyncIterator[Site]:
    async with started(TftpLimits(), request.param) as site:
        yield site


@pytest.fixture
async def client(site: Site) -> AsyncIterator[Client]:
    client = Client(site.server.port)
    yield client
    client.socket.close()
