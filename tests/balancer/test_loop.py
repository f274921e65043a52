"""The balancer where the kernel has no IPVS, or not yet: the rest of the server goes on without it."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from pxeboot.balancer import director, ipvs, loop
from pxeboot.balancer.loop import Balancer
from pxeboot.balancer.plan import Change
from pxeboot.balancer.table import Entry, ServiceKey
from pxeboot.errors import PxebootError
from pxeboot.events import Bus
from pxeboot.inventory.progress import Progress
from pxeboot.inventory.store import open_store
from tests import guest
from tests.lab.conditions import needs_network
from tests.parts import SITE, make_site
from tests.serving import CLIENT, CONFIG, served, wait_for

SERVICE = """
[[service]]
name = "www"
vip = "10.77.0.10"
port = 80
group = "web"
"""
NO_IPVS = PxebootError("this kernel has no IPVS", "modprobe ip_vs")


class Table:
    """In place of the kernel's."""

    changes: list[str] = []  # noqa: RUF012  of all of them

    def table(self, *, traffic: bool = False) -> dict[ServiceKey, Entry]:
        return {}

    def apply(self, changes: Sequence[Change]) -> list[tuple[Change, str]]:
        self.changes.extend(str(change) for change in changes)
        return []

    def close(self) -> None:
        pass


class Box(director.Director):
    """In place of this computer's addresses and settings."""

    def put(self, addresses: object) -> list[object]:  # type: ignore[override]
        return []

    def set(self, wanted: object) -> list[str]:
        return []


@pytest.fixture
async def balancer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Balancer]:
    def refuse() -> None:
        raise NO_IPVS

    monkeypatch.setattr(ipvs, "load", refuse)
    monkeypatch.setattr(ipvs, "Kernel", Table)
    monkeypatch.setattr(director, "Director", Box)
    monkeypatch.setattr(loop, "OPEN_SECONDS", 0.01)
    monkeypatch.setattr(Table, "changes", [])
    site = make_site(tmp_path, SITE + SERVICE + 'interface = "lo"\n')
    store, bus = open_store(tmp_path), Bus()
    made = Balancer(site, store, Progress(store, bus), bus)
    await made.start()
    yield made
    await made.close()
    await store.close()


async def test_services_come_as_soon_as_the_kernel_has_ipvs(
    balancer: Balancer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    await balancer.round()  # what an operator's drain asks for: it is remembered, for later
    assert (balancer.trouble("www"), await balancer.table()) == (NO_IPVS, {})
    await asyncio.sleep(0.1)
    assert [record.message for record in caplog.get_records("setup") + caplog.records] == [
        "services are not in the kernel: this kernel has no IPVS; modprobe ip_vs"
    ]
    monkeypatch.setattr(ipvs, "load", lambda: None)
    async with asyncio.timeout(10):
        while not Table.changes:
            await asyncio.sleep(0.01)
    assert Table.changes == ["add service tcp 10.77.0.10 80 (wlc)"]
    assert balancer.trouble("www") is None


async def test_clearing_is_refused_with_the_reason(balancer: Balancer) -> None:
    with pytest.raises(PxebootError, match="this kernel has no IPVS"):
        await balancer.clear()
    assert not balancer.cleared


@pytest.mark.net
@needs_network
def test_machines_are_served_though_the_kernel_has_no_ipvs(tmp_path: Path) -> None:
    why = guest.lack()
    if not why:
        pytest.skip("this kernel has IPVS")
    with served(tmp_path, CONFIG + SERVICE) as server:
        wait_for(lambda: "ready" in server.log, 15)
        assert f"services are not in the kernel: {why}; load it: modprobe ip_vs" in server.log
        asked = server.cable.run("busybox", "udhcpc", "-i", CLIENT, "-f", "-q", "-n", "-s", "/bin/true")
        assert "lease of 10.77.0.100 obtained" in asked.stderr
        listed = server.cli("service", "list").stdout
        assert "not in the kernel" in listed
        assert f"www: {why}; load it" in listed
        assert f"not in the kernel: {why}; load it" in server.cli("status").stdout
        refused = server.cli("service", "clear")
        assert (refused.returncode, why in refused.stderr) == (1, True)
        assert "Traceback" not in server.log
