"""DNS over real sockets: dig and kdig agree, others are asked, nonsense leaves it serving."""

import asyncio
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

import pytest
from dnslib import QTYPE, RCODE, RR, SOA, A, DNSRecord

from pxeboot.dns import forward
from pxeboot.dns.forward import Forwarder
from pxeboot.dns.server import DnsServer
from pxeboot.dns.zone import Published, Zone, make_zone

LOOPBACK = IPv4Address("127.0.0.1")
NETWORKS = (IPv4Network("10.77.0.0/24"),)


def zone(address: str = "10.77.0.100") -> Zone:
    hosts = {"web1": (IPv4Address(address),), "www": (IPv4Address("10.77.0.10"),)}
    services = (Published("www", "tcp", 80),)
    return make_zone("boot.example", IPv4Address("10.77.0.1"), hosts, services, NETWORKS, 7)


class Upstream(asyncio.DatagramProtocol):
    """Another DNS server on loopback, as a test wants it to be."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.silent = False
        self.truncate = False

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        self.transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        query = DNSRecord.parse(data)
        self.asked.append(str(query.q.qname))
        if not self.silent:
            self.transport.sendto(self.answer(query, truncate=self.truncate), addr)

    def answer(self, query: DNSRecord, *, truncate: bool = False) -> bytes:
        reply = query.reply()
        if str(query.q.qname) == "missing.example.":
            reply.header.rcode = RCODE.NXDOMAIN
            reply.add_auth(
                RR("example", QTYPE.SOA, ttl=300, rdata=SOA("ns.example", "x.example", (1, 1, 1, 1, 60)))
            )
        elif truncate:
            reply.header.tc = 1
        else:
            reply.add_answer(RR(query.q.qname, QTYPE.A, ttl=300, rdata=A("192.0.2.7")))
        packed: bytes = reply.pack()
        return packed

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        size = int.from_bytes(await reader.readexactly(2), "big")
        data = self.answer(DNSRecord.parse(await reader.readexactly(size)))
        writer.write(len(data).to_bytes(2, "big") + data)
        await writer.drain()
        writer.close()


@dataclass
class House:
    """Our server and the one it forwards to."""

    server: DnsServer
    upstream: Upstream
    zone: Zone

    async def dig(self, *words: str, program: str = "dig") -> str:
        """What a real client makes of our answer."""
        limits = ("+time=2", "+tries=1") if program == "dig" else ("+time=2", "+retry=0")
        command = (program, "@127.0.0.1", "-p", str(self.server.port), *limits, *words)
        run = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
        out, _ = await asyncio.wait_for(run.communicate(), 15)
        return out.decode()


def free_port() -> int:
    """A port that TCP can have: one that UDP gives may be held by a connection that has just ended."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
async def house() -> AsyncIterator[House]:
    loop = asyncio.get_running_loop()
    upstream = Upstream()
    tcp = await asyncio.start_server(upstream.converse, "127.0.0.1", 0)
    port = tcp.sockets[0].getsockname()[1]
    transport, _ = await loop.create_datagram_endpoint(lambda: upstream, local_addr=("127.0.0.1", port))
    forwarder = Forwarder(["127.0.0.1"], port)
    made = House(None, upstream, zone())  # type: ignore[arg-type]
    made.server = DnsServer(
        LOOPBACK, lambda: made.zone, lambda client: client.is_loopback, forwarder, free_port()
    )
    await made.server.start()
    yield made
    await made.server.close()
    await forwarder.close()
    tcp.close()
    transport.close()


@pytest.mark.parametrize("program", ["dig", "kdig"])
@pytest.mark.parametrize("transport", ["+notcp", "+tcp", "+edns=0", "+noedns"])
async def test_real_clients_read_our_answers(house: House, program: str, transport: str) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"{program} is missing: apt-get install bind9-dnsutils knot-dnsutils")
    transport = {"+edns=0": "+edns"}.get(transport, transport) if program == "kdig" else transport
    told = await house.dig("web1.boot.example", "A", transport, program=program)
    assert "10.77.0.100" in told
    assert "NOERROR" in told
    assert " aa" in told
    assert "WARNING" not in told
    assert "web1.boot.example." in await house.dig("-x", "10.77.0.100", "+short", program=program)


@pytest.mark.parametrize("program", ["dig", "kdig"])
async def test_real_clients_find_a_service(house: House, program: str) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"{program} is missing: apt-get install bind9-dnsutils knot-dnsutils")
    told = await house.dig("_www._tcp.boot.example", "SRV", program=program)
    assert "0 100 80 www.boot.example." in told
    assert "10.77.0.10" in told  # in the additional section
    assert "WARNING" not in told
    told = await house.dig("web1.boot.example", "ANY", program=program)
    assert "NOERROR" in told


async def test_a_kept_answer_is_the_same_and_a_new_zone_another(house: House) -> None:
    first = await house.dig("web1.boot.example", "+short")
    assert await house.dig("web1.boot.example", "+short") == first == "10.77.0.100\n"
    house.zone = zone("10.77.0.101")
    assert await house.dig("web1.boot.example", "+short") == "10.77.0.101\n"


async def test_denials_have_their_soa(house: House) -> None:
    told = await house.dig("web9.boot.example")
    assert "NXDOMAIN" in told
    assert "SOA\tpxeboot.boot.example." in told
    told = await house.dig("web1.boot.example", "AAAA")
    assert "NOERROR" in told
    assert "SOA\tpxeboot.boot.example." in told


async def test_others_are_asked_and_their_answers_kept(house: House) -> None:
    for _ in range(3):
        told = await house.dig("debian.example")
        assert "192.0.2.7" in told
        assert " aa" not in told
    for _ in range(2):
        assert "NXDOMAIN" in await house.dig("missing.example")
    assert house.upstream.asked == ["debian.example.", "missing.example."]


async def test_what_did_not_fit_is_asked_again_over_tcp(house: House) -> None:
    house.upstream.truncate = True
    assert await house.dig("debian.example", "+short") == "192.0.2.7\n"


async def test_a_silent_server_is_a_failure_in_time(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forward, "TRY_SECONDS", 0.2)
    house.upstream.silent = True
    assert "SERVFAIL" in await house.dig("debian.example")


async def test_the_next_server_is_asked_when_one_is_silent(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forward, "TRY_SECONDS", 0.2)
    house.server._forwarder._servers = ["127.0.0.99", "127.0.0.1"]
    assert await house.dig("debian.example", "+short") == "192.0.2.7\n"


async def test_equal_questions_under_way_are_asked_once(house: House) -> None:
    told = await asyncio.gather(*(house.dig("debian.example", "+short") for _ in range(5)))
    assert told == ["192.0.2.7\n"] * 5
    assert len(house.upstream.asked) == 1


async def test_without_servers_to_ask_the_rest_is_refused(house: House) -> None:
    house.server._forwarder._servers = []
    assert "REFUSED" in await house.dig("debian.example")


async def test_strangers_get_no_answer(house: House) -> None:
    house.server._allowed = lambda client: False
    assert "10.77.0.100" not in await house.dig("web1.boot.example")
    assert "10.77.0.100" not in await house.dig("web1.boot.example", "+tcp")


async def test_nonsense_leaves_it_serving(house: House) -> None:
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(
        asyncio.DatagramProtocol, remote_addr=("127.0.0.1", house.server.port)
    )
    for size in range(0, 1200, 7):
        transport.sendto(bytes((size * n) % 256 for n in range(size)))
    transport.close()
    for data in (b"\0", b"\xff" * 5000, b"\0\x05abcde", b"\0\0"):
        reader, writer = await asyncio.open_connection("127.0.0.1", house.server.port)
        writer.write(data)
        writer.write_eof()
        await asyncio.wait_for(reader.read(), 5)
        writer.close()
    assert await house.dig("web1.boot.example", "+short") == "10.77.0.100\n"
