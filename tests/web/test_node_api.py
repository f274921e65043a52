"""The node-facing routes over real sockets: scripts, artefacts, events, commands."""

import asyncio
import logging
import subprocess
import time
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path
from uuid import UUID

import pytest
from aiohttp import ClientSession, TCPConnector
from aiohttp.test_utils import TestClient, TestServer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pxeboot.balancer.service import ServiceConfig
from pxeboot.errors import PxebootError
from pxeboot.inventory.boot import Boot, Stage
from pxeboot.inventory.node import Node
from pxeboot.mac import Mac
from pxeboot.pxe.client import Client
from pxeboot.web.commands import Commands
from pxeboot.web.node_api import NodeApi
from pxeboot.web.token import LIFETIME_SECONDS, RENEW_SECONDS, Claim, sign
from tests.parts import INITRD, KERNEL, ROOT, make_site
from tests.web.house import LOADER, MAC, OTHER, SECRET, House


async def test_a_script_begins_a_boot_with_its_image(house: House) -> None:
    text = await house.script()
    assert "pxeboot.name=web1" in text
    assert "console=ttyS0" in text
    boot = await house.store.boot(MAC)
    assert boot is not None
    assert (boot.stage, boot.image, boot.loader) == (Stage.SCRIPT, house.image, "iPXE")


async def test_a_script_after_dhcp_is_of_the_same_boot_and_has_its_address(house: House) -> None:
    await house.progress.discovered(Client(MAC, architecture=0, user_class="iPXE"))
    subnet = make_site(Path("/nowhere")).config.network[0].subnet
    await house.store.bind(subnet, MAC, IPv4Address("127.0.0.100"), time.time(), 100.0)
    assert "pxeboot.address=127.0.0.100/8" in await house.script()
    assert len(await house.store.boots(MAC)) == 1


async def test_a_loader_that_asks_again_is_in_the_same_boot(house: House) -> None:
    path = await house.boot_path()
    async with house.http.get(f"{path}/kernel"):
        pass
    await house.script()
    assert len(await house.store.boots(MAC)) == 1


async def test_a_loader_that_asks_again_is_told_the_same_until_something_changes(house: House) -> None:
    first = await house.script()
    assert await house.script() == first
    await house.store.save_node(Node(MAC, "renamed"))
    second = await house.script()
    assert "pxeboot.name=renamed" in second
    async with house.http.get(f"{await house.boot_path()}/kernel") as answer:
        assert answer.status == 200
    assert await house.script() == second  # the same boot, a stage back
    await house.report(await house.boot_path(), stage="ready")
    third = await house.script()
    assert third != second  # another boot, another token


async def test_an_unknown_machine_is_told_that_nobody_claims_it(house: House) -> None:
    assert "no group claims 52:54:00:00:00:02" in await house.script(OTHER)


async def test_a_missing_image_is_said_on_the_console(house: House, tmp_path: Path) -> None:
    (tmp_path / "images/tags/web.json").unlink()
    text = await house.script()
    assert "web" in text
    assert "chain --replace http://127.0.0.1/ipxe/52:54:00:00:00:01" in text


async def test_another_machine_does_not_get_this_ones_token(house: House) -> None:
    await lease_to(house, OTHER, "127.0.0.150")
    url = house.http.make_url(f"/ipxe/{MAC}")
    curl = await asyncio.create_subprocess_exec(
        "curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "--interface", "127.0.0.150", str(url),
        stdout=subprocess.PIPE,
    )  # fmt: skip
    out, _ = await asyncio.wait_for(curl.communicate(), 10)
    assert out == b"403"


async def lease_to(house: House, mac: Mac, address: str) -> None:
    subnet = house.site.config.network[0].subnet
    await house.store.offer(subnet, mac, IPv4Address(address), time.time(), 60.0)
    await house.store.bind(subnet, mac, IPv4Address(address), time.time(), 60.0)


async def report_from(house: House, address: str, path: str) -> int:
    connector = TCPConnector(local_addr=(address, 0))
    async with ClientSession(connector=connector) as session:
        url = house.http.make_url(f"{path}/event")
        async with session.post(url, json={"stage": "network"}) as answer:
            return answer.status


async def test_a_token_of_another_machines_boot_is_refused(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    await house.store.save_node(Node(OTHER, "web2"))
    path, other = await house.boot_path(), await house.boot_path(OTHER)
    await lease_to(house, OTHER, "127.0.0.150")
    assert await report_from(house, "127.0.0.150", path) == 403
    assert f"{OTHER}: refused the token of {MAC}: 127.0.0.150 is not its address" in caplog.text
    assert await report_from(house, "127.0.0.150", other) == 200


@pytest.mark.parametrize("same_uuid", [False, True])
async def test_a_second_network_card_speaks_for_its_machine(house: House, same_uuid: bool) -> None:
    path = await house.boot_path()
    if same_uuid:
        uuid = UUID(int=7)
        await house.store.save_node(Node(MAC, "web1", uuid=uuid))
        await house.store.save_node(Node(OTHER, "web2", uuid=uuid))
        await house.boot_path(OTHER)
    await lease_to(house, OTHER, "127.0.0.150")
    assert await report_from(house, "127.0.0.150", path) == 200


async def test_the_address_that_another_server_gave_is_its_machines_too(house: House) -> None:
    house.progress.sighted(OTHER, IPv4Address("127.0.0.1"))
    async with house.http.get(f"/ipxe/{MAC}") as answer:
        assert answer.status == 403
    house.progress.sighted(MAC, IPv4Address("127.0.0.1"))
    assert "pxeboot.name=web1" in await house.script()


async def test_a_loader_is_given_as_http_boot_wants_it(house: House) -> None:
    async with house.http.head("/loader/snponly.efi") as asked:
        assert (asked.status, asked.headers["Content-Type"]) == (200, "application/efi")
        assert asked.headers["Content-Length"] == str(len(LOADER.data))
        etag = asked.headers["ETag"]
        assert etag == f'"{LOADER.sha256}"'
    async with house.http.get("/loader/snponly.efi", headers={"If-Match": etag}) as answer:
        assert await answer.read() == LOADER.data
        assert "Transfer-Encoding" not in answer.headers
    async with house.http.get("/loader/snponly.efi", headers={"Range": "bytes=1000-1099"}) as answer:
        assert (answer.status, await answer.read()) == (206, LOADER.data[1000:1100])


async def test_head_and_get_of_a_loader_come_over_one_connection(house: House) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", house.http.port)
    sent = b"".join(b"%s /loader/snponly.efi HTTP/1.1\r\nHost: x\r\n\r\n" % how for how in (b"HEAD", b"GET"))
    writer.write(sent)
    for size in (0, len(LOADER.data)):
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK")
        assert await reader.readexactly(size) == LOADER.data[:size]
    writer.close()
    await writer.wait_closed()


async def test_only_a_get_of_its_loader_is_a_step_of_a_machine(house: House) -> None:
    await house.progress.discovered(Client(MAC, architecture=16, vendor_class="HTTPClient"))
    house.progress.sighted(MAC, IPv4Address("127.0.0.1"))
    async with house.http.head("/loader/snponly.efi"):
        assert await house.stage() is Stage.DISCOVER
    async with house.http.get("/loader/snponly.efi"):
        assert await house.stage() is Stage.LOADER
    boot = await house.store.boot(MAC)
    assert boot is not None
    assert (boot.loader, boot.sent) == ("snponly.efi", {"http snponly.efi": len(LOADER.data)})


@pytest.mark.parametrize("name", ["undionly.kpxe", "..%2fsecret", "%2e%2e%2fpxeboot.toml", ""])
async def test_no_other_name_is_a_loader(house: House, name: str) -> None:
    async with house.http.get(f"/loader/{name}") as answer:
        assert answer.status == 404


@pytest.mark.parametrize(("name", "data"), [("kernel", KERNEL), ("initrd", INITRD), ("root", ROOT)])
async def test_an_artefact_comes_whole_with_its_digest_as_etag(house: House, name: str, data: bytes) -> None:
    path = await house.boot_path()
    async with house.http.get(f"{path}/{name}") as answer:
        assert await answer.read() == data
        etag = answer.headers["ETag"]
        assert (answer.status, answer.headers["Content-Length"]) == (200, str(len(data)))
    async with house.http.head(f"{path}/{name}") as answer:
        assert (answer.headers["Content-Length"], answer.headers["ETag"]) == (str(len(data)), etag)
        assert await answer.read() == b""
    async with house.http.get(f"{path}/{name}", headers={"If-None-Match": etag}) as answer:
        assert (answer.status, await answer.read()) == (304, b"")


@pytest.mark.parametrize("wanted", ["0-0", "5-1004", "1048000-", "-77", "0-"])
async def test_a_range_is_byte_for_byte_right(house: House, wanted: str) -> None:
    path = await house.boot_path()
    first, _, last = wanted.partition("-")
    expected = ROOT[int(first) : int(last) + 1 if last else None] if first else ROOT[-int(last) :]
    async with house.http.get(f"{path}/root", headers={"Range": f"bytes={wanted}"}) as answer:
        body = await answer.read()
        assert (answer.status, body) == (206, expected)
        assert answer.headers["Content-Range"].endswith(f"/{len(ROOT)}")


async def test_a_range_past_the_end_is_refused_with_the_size(house: House) -> None:
    path = await house.boot_path()
    async with house.http.get(f"{path}/root", headers={"Range": f"bytes={len(ROOT)}-"}) as answer:
        assert (answer.status, answer.headers["Content-Range"]) == (416, f"bytes */{len(ROOT)}")


async def test_head_get_and_range_share_one_connection(house: House) -> None:
    path = await house.boot_path()
    async with ClientSession() as session:
        for _ in range(3):
            async with session.head(house.http.make_url(f"{path}/root")) as answer:
                assert answer.status == 200
            async with session.get(house.http.make_url(f"{path}/root")) as answer:
                assert len(await answer.read()) == len(ROOT)
        assert session.connector is not None
        assert len(session.connector._conns) == 1


async def test_curl_resumes(house: House, tmp_path: Path) -> None:
    path = await house.boot_path()
    (tmp_path / "part").write_bytes(ROOT[:12345])
    curl = await asyncio.create_subprocess_exec(
        "curl", "-sS", "-C", "-", "-o", str(tmp_path / "part"), str(house.http.make_url(f"{path}/root"))
    )
    assert await asyncio.wait_for(curl.wait(), 20) == 0
    assert (tmp_path / "part").read_bytes() == ROOT


async def test_fetching_moves_the_boot_and_counts_bytes(house: House) -> None:
    path = await house.boot_path()
    for name, stage in (("kernel", Stage.KERNEL), ("initrd", Stage.INITRD)):
        async with house.http.get(f"{path}/{name}") as answer:
            await answer.read()
        assert await house.stage() is stage
    async with house.http.head(f"{path}/kernel"):
        pass
    boot = await house.store.boot(MAC)
    assert boot is not None
    assert boot.sent == {"http kernel": len(KERNEL), "http initrd": len(INITRD)}


async def test_a_node_reports_its_way_to_ready(house: House) -> None:
    path = await house.boot_path()
    assert await house.report(path, stage="network", detail="eth0") == 200
    assert await house.report(path, stage="image", done=10, total=100) == 200
    boot = await house.store.boot(MAC)
    assert boot is not None
    assert (boot.done, boot.total) == (10, 100)
    assert await house.report(path, stage="root") == 200
    assert await house.report(path, stage="ready", detail="running") == 200
    assert await house.report(path, stage="ready") == 200
    assert await house.stage() is Stage.READY


SERVICES = [
    ServiceConfig(name="www", vip=IPv4Address("10.0.0.9"), port=80, group="web", forward="dr"),
    ServiceConfig(name="mail", vip=IPv4Address("10.0.0.8"), port=25, group="mail", forward="tun"),
]


async def test_a_node_is_told_what_its_services_need_until_it_has_that(house: House) -> None:
    path = await house.boot_path()
    house.site.config = house.site.config.model_copy(update={"service": tuple(SERVICES)})
    async with house.http.get(f"{path}/services") as answer:
        assert await answer.json() == {"services": "dr 10.0.0.9"}
    for has, news in (("", {"services": "dr 10.0.0.9"}), ("dr 10.0.0.9", {})):
        event = {"stage": "ready", "services": has}
        async with house.http.post(f"{path}/event", json=event) as answer:
            assert await answer.json() == news
        boot = await house.store.boot(MAC)
        assert boot is not None
        assert boot.services == has
    house.site.config = house.site.config.model_copy(update={"service": ()})
    async with house.http.post(f"{path}/event", json={"stage": "ready", "services": "dr 10.0.0.9"}) as answer:
        assert await answer.json() == {"services": ""}


async def test_a_failure_is_kept_with_its_class(house: House) -> None:
    path = await house.boot_path()
    await house.report(path, stage="failed", detail="digest: expected aa, got bb")
    boot = await house.store.boot(MAC)
    assert boot is not None
    assert (boot.stage, boot.failure_class, boot.failure) == (
        Stage.FAILED,
        "digest",
        "digest: expected aa, got bb",
    )


async def test_a_report_that_cannot_be_is_refused(house: House) -> None:
    path = await house.boot_path()
    await house.report(path, stage="ready")
    assert await house.report(path, stage="image") == 409
    assert await house.stage() is Stage.READY


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b'{"stage": "serving"}', b'{"stage": "image", "done": -1}', b"\xff" * 50]
)
async def test_nonsense_as_a_report_is_refused(house: House, body: bytes) -> None:
    path = await house.boot_path()
    async with house.http.post(f"{path}/event", data=body) as answer:
        assert answer.status == 400


async def test_a_report_of_megabytes_is_refused(house: House) -> None:
    path = await house.boot_path()
    async with house.http.post(f"{path}/event", data=b"x" * 100_000) as answer:
        assert answer.status == 413


async def test_an_aged_token_is_replaced_and_the_new_one_works(house: House) -> None:
    boot = await house.store.boot(MAC) or Boot.begin("ab" * 8, MAC, "", 0.0).step(Stage.ROOT, time.time())
    await house.store.save_boot(boot)
    expires = int(time.time()) + LIFETIME_SECONDS - RENEW_SECONDS - 10
    aged = sign(Claim(boot.id, MAC, house.image, expires), SECRET)
    async with house.http.post(f"/boot/{aged}/event", json={"stage": "ready"}) as answer:
        fresh = (await answer.json())["token"]
    async with house.http.post(f"/boot/{fresh}/event", json={"stage": "ready"}) as answer:
        assert (answer.status, await answer.json()) == (200, {})


@pytest.mark.parametrize("case", ["expired", "forged", "earlier boot", "other image"])
async def test_a_token_that_does_not_hold_is_refused_and_told(
    house: House, case: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    path = await house.boot_path()
    boot = await house.store.boot(MAC)
    assert boot is not None
    claim = Claim(boot.id, MAC, house.image, int(time.time()) + 60)
    token = {
        "expired": sign(replace(claim, expires=int(time.time()) - 1), SECRET),
        "forged": sign(claim, b"x" * 32),
        "earlier boot": sign(replace(claim, boot_id="00" * 8), SECRET),
        "other image": sign(replace(claim, image="00" * 32), SECRET),
    }[case]
    status = 404 if case == "other image" else 403
    async with house.http.get(f"/boot/{token}/root") as answer:
        assert answer.status == status
    told = "".join(line.getMessage() for line in caplog.records if line.name.startswith("pxeboot"))
    assert ("cannot load root" if status == 404 else "token refused: it") in told
    assert token not in told
    async with house.http.get(f"{path}/root") as answer:
        assert answer.status == 200


async def test_a_living_node_keeps_its_lease(house: House) -> None:
    subnet = make_site(Path("/nowhere")).config.network[0].subnet
    await house.store.offer(subnet, MAC, None, time.time(), 60.0)
    await house.store.bind(subnet, MAC, IPv4Address("127.0.0.100"), time.time(), 5.0)
    await house.report(await house.boot_path(), stage="ready")
    lease = await house.store.lease_of(subnet, MAC)
    assert lease is not None
    assert lease.expires > time.time() + 3000


async def test_a_command_reaches_the_agent_that_waits_for_it(house: House) -> None:
    path = await house.boot_path()
    waiting = asyncio.create_task(house.http.get(f"{path}/commands"))
    await house.commands.give(MAC, "reboot")
    answer = await asyncio.wait_for(waiting, 5)
    assert await answer.json() == {"command": "reboot"}


async def test_a_newer_question_of_the_same_node_ends_the_older_one(house: House) -> None:
    path = await house.boot_path()
    older = asyncio.create_task(house.http.get(f"{path}/commands"))
    await asyncio.sleep(0.2)
    newer = asyncio.create_task(house.http.get(f"{path}/commands"))
    assert (await asyncio.wait_for(older, 5)).status == 204
    await house.commands.give(MAC, "poweroff")
    assert (await asyncio.wait_for(newer, 5)).status == 200


async def test_an_agent_that_hung_up_takes_no_command(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pxeboot.web.commands.DELIVERY_SECONDS", 0.5)
    path = await house.boot_path()
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(house.http.get(f"{path}/commands"), 0.2)
    await asyncio.sleep(0.1)  # until the server has heard of it
    with pytest.raises(PxebootError, match="did not take the command"):
        await house.commands.give(MAC, "reboot")


async def test_a_command_nobody_takes_has_not_been_given(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pxeboot.web.commands.DELIVERY_SECONDS", 0.2)
    with pytest.raises(PxebootError, match="did not take the command 'reboot'"):
        await house.commands.give(MAC, "reboot")


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=60).filter(lambda it: not it.startswith("/"))
)
def test_no_path_reaches_a_file(text: str) -> None:
    async def ask() -> None:
        site = make_site(Path("/nowhere"))
        api = NodeApi(site, None, None, None, None, Commands(), None, SECRET, dict, None, None)  # type: ignore[arg-type]
        async with TestClient(TestServer(api.application())) as http:
            for path in (f"/{text}", f"/ipxe/{text}", f"/boot/{text}/root", f"/boot/x/{text}", f"/../{text}"):
                async with http.get(path, allow_redirects=False) as answer:
                    assert answer.status in (400, 403, 404, 405)

    asyncio.run(ask())


async def test_raw_bytes_at_the_port_leave_it_serving(house: House) -> None:
    port = house.http.port
    assert port is not None
    for data in (
        b"\0" * 600,
        b"GET / HTTP/9.9\r\n\r\n",
        b"\xff" * 70_000,
        b"GET /" + b"a" * 70_000,
        b"\r\n" * 50,
    ):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(data)
        writer.write_eof()
        await asyncio.wait_for(reader.read(), 10)
        writer.close()
    assert "#!ipxe" in await house.script()
