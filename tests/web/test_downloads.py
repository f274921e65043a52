"""Root downloads over real sockets, where only so many may load at once."""

import asyncio
from pathlib import Path

import pytest
from aiohttp import ClientResponse

from pxeboot.inventory.node import Node
from pxeboot.mac import Mac
from tests.parts import ROOT
from tests.web.house import MAC, OTHER, House

BIG = ROOT * 32  # more than the buffers of both ends hold


@pytest.fixture
def one_slot(house: House, monkeypatch: pytest.MonkeyPatch) -> House:
    """A house whose link feeds one download; who waits is answered at once."""
    monkeypatch.setattr("pxeboot.web.downloads.WAIT_SECONDS", 0.0)
    allow(house, 1)
    return house


def allow(house: House, slots: int) -> None:
    http = house.site.config.http.model_copy(update={"max_downloads": slots})
    house.site.config = house.site.config.model_copy(update={"http": http})


async def path_of(house: House, mac: Mac) -> str:
    await house.store.save_node(Node(mac, f"node-{mac[-2:]}"))
    return await house.boot_path(mac)


async def begin(house: House, path: str) -> ClientResponse:
    """A download under way, of which nothing is taken."""
    answer = await house.http.get(f"{path}/root")
    assert answer.status == 200
    return answer


async def refused(house: House, path: str) -> tuple[int, int]:
    """Place and pause that a node is told."""
    async with house.http.get(f"{path}/root") as answer:
        assert answer.status == 503
        return int(answer.headers["Queue-Place"]), int(answer.headers["Retry-After"])


async def test_who_must_wait_is_told_when_to_ask_and_loads_when_the_other_has_ended(
    one_slot: House, tmp_path: Path
) -> None:
    house = one_slot
    house.put_root(BIG)
    first, second = await path_of(house, MAC), await path_of(house, OTHER)
    loading = await begin(house, first)
    place, pause = await refused(house, second)
    assert (place, pause) == (1, 0)  # it has waited for the answer already
    assert await loading.read() == BIG
    async with house.http.get(f"{second}/root") as answer:
        assert (answer.status, await answer.read()) == (200, BIG)


async def test_firmware_is_never_refused(one_slot: House) -> None:
    house = one_slot
    house.put_root(BIG)
    first, second = await path_of(house, MAC), await path_of(house, OTHER)
    loading = await begin(house, first)
    for name in ("kernel", "initrd"):
        async with house.http.get(f"{second}/{name}") as answer:
            assert answer.status == 200
    async with house.http.head(f"{second}/root") as answer:
        assert answer.status == 200
    loading.close()


async def test_a_download_that_broke_off_goes_on_before_those_who_wait(one_slot: House) -> None:
    house = one_slot
    house.put_root(BIG)
    first, second = await path_of(house, MAC), await path_of(house, OTHER)
    loading = await begin(house, first)
    await refused(house, second)
    loading.close()
    await asyncio.sleep(0.2)
    await refused(house, second)
    async with house.http.get(f"{first}/root", headers={"Range": "bytes=-9"}) as answer:
        assert (answer.status, await answer.read()) == (206, BIG[-9:])


async def test_a_slot_of_a_dead_connection_comes_back(
    one_slot: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pxeboot.web.admission.HELD_SECONDS", 0.3)
    house = one_slot
    house.put_root(BIG)
    first, second = await path_of(house, MAC), await path_of(house, OTHER)
    (await begin(house, first)).close()
    await asyncio.sleep(0.6)
    async with house.http.get(f"{second}/root") as answer:
        assert answer.status == 200


async def test_the_next_in_the_queue_is_kept_waiting_for_its_answer(house: House) -> None:
    allow(house, 1)
    house.put_root(BIG)
    first, second = await path_of(house, MAC), await path_of(house, OTHER)
    loading = await begin(house, first)
    waiting = asyncio.create_task(house.http.get(f"{second}/root"))
    await asyncio.sleep(0.3)
    assert not waiting.done()
    await loading.read()
    answer = await asyncio.wait_for(waiting, 0.5)
    assert (answer.status, await answer.read()) == (200, BIG)


async def test_a_node_that_waits_is_shown_with_its_place(one_slot: House) -> None:
    house = one_slot
    house.put_root(BIG)
    first, second = await path_of(house, MAC), await path_of(house, OTHER)
    loading = await begin(house, first)
    await refused(house, second)
    assert await house.report(second, stage="image", done=0, total=len(BIG)) == 200
    boot = await house.store.boot(OTHER)
    assert boot is not None
    assert boot.detail == "queued, place 1"
    await loading.read()
    async with house.http.get(f"{second}/root") as answer:
        await answer.read()
    await house.report(second, stage="image", done=5, total=len(BIG))
    boot = await house.store.boot(OTHER)
    assert boot is not None
    assert (boot.detail, boot.done) == ("", 5)
