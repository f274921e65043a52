"""Questions that are not ours: asked of other servers, kept for as long as their answers hold."""

import asyncio
import logging
import secrets
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from dnslib import QTYPE, RCODE, RR, DNSQuestion, DNSRecord

from pxeboot.dns.message import OUR_BYTES, Query, decode_response, encode_question, finish
from pxeboot.errors import MalformedPacket
from pxeboot.tasks import Tasks

log = logging.getLogger(__name__)

TRY_SECONDS = 1.5
"""How long one server is given; then the next is asked, and the first once more at the end."""
MAX_OUTSTANDING = 1000
MAX_KEPT = 10_000
MAX_TTL_SECONDS = 3600.0
PORT = 53

Key = tuple[str, int, int]


@dataclass(frozen=True, slots=True)
class _Kept:
    response: DNSRecord
    since: float
    until: float


class Forwarder:
    """Asks `servers` in turn. Equal questions under way are asked once."""

    def __init__(self, servers: Sequence[str], port: int = PORT) -> None:
        self._servers = servers
        self._port = port
        self._kept: OrderedDict[Key, _Kept] = OrderedDict()
        self._asking: dict[Key, asyncio.Future[DNSRecord | None]] = {}
        self._tasks = Tasks()

    @property
    def asks_others(self) -> bool:
        """Whether there is anybody to ask."""
        return bool(self._servers)

    async def answer(self, query: Query) -> bytes:
        """The response: REFUSED where nobody is to be asked, SERVFAIL where nobody answers."""
        if not self._servers:
            return finish(query, [], [], RCODE.REFUSED)
        key = _key(query.question)
        now = time.monotonic()
        kept = self._kept.get(key)
        if kept is not None and now < kept.until:
            return _as_answer(query, kept.response, int(now - kept.since))
        response = await self._ask_once(key, query.question)
        if response is None:
            return finish(query, [], [], RCODE.SERVFAIL)
        return _as_answer(query, response, 0)

    async def close(self) -> None:
        """Give up what is under way."""
        await self._tasks.close()

    async def _ask_once(self, key: Key, question: DNSQuestion) -> DNSRecord | None:
        coming = self._asking.get(key)
        if coming is None:
            if len(self._asking) >= MAX_OUTSTANDING:
                log.warning("%d DNS questions wait for other servers: no more are asked", MAX_OUTSTANDING)
                return None
            coming = self._asking[key] = asyncio.get_running_loop().create_future()
            self._tasks.spawn(self._settle(key, question, coming), "DNS forward")
        return await asyncio.shield(coming)

    async def _settle(
        self, key: Key, question: DNSQuestion, coming: "asyncio.Future[DNSRecord | None]"
    ) -> None:
        response = None
        try:
            response = await self._ask(key, question)
        finally:
            del self._asking[key]
            coming.set_result(response)

    async def _ask(self, key: Key, question: DNSQuestion) -> DNSRecord | None:
        for server in (*self._servers, self._servers[0]):
            try:
                async with asyncio.timeout(TRY_SECONDS):
                    response = await _exchange(question, server, self._port)
            except (TimeoutError, OSError, MalformedPacket) as error:
                log.debug("DNS server %s: %s", server, error or "no answer")
                continue
            if response.header.rcode not in (RCODE.NOERROR, RCODE.NXDOMAIN):
                continue
            self._keep(key, response)
            return response
        return None

    def _keep(self, key: Key, response: DNSRecord) -> None:
        seconds = _holds(response)
        if seconds <= 0:
            return
        now = time.monotonic()
        self._kept[key] = _Kept(response, now, now + seconds)
        self._kept.move_to_end(key)
        while len(self._kept) > MAX_KEPT:
            self._kept.popitem(last=False)


def _key(question: DNSQuestion) -> Key:
    return str(question.qname).lower(), int(question.qtype), int(question.qclass)


def _holds(response: DNSRecord) -> float:
    """Seconds a response may be kept: its shortest TTL, or for a denial what the SOA says (RFC 2308 §5)."""
    if response.rr:
        return float(min(MAX_TTL_SECONDS, *(record.ttl for record in response.rr)))
    for record in response.auth:
        if record.rtype == QTYPE.SOA:
            return float(min(MAX_TTL_SECONDS, record.ttl, record.rdata.times[4]))
    return 0.0


def _as_answer(query: Query, response: DNSRecord, age: int) -> bytes:
    def aged(records: list[RR]) -> list[RR]:
        kept = [record for record in records if record.rtype != QTYPE.OPT]
        return [RR(r.rname, r.rtype, r.rclass, max(0, r.ttl - age), r.rdata) for r in kept]

    return finish(query, aged(response.rr), aged(response.auth), response.header.rcode)


async def _exchange(question: DNSQuestion, server: str, port: int) -> DNSRecord:
    """Ask over UDP from a port of its own with a random id (RFC 5452); over TCP what did not fit."""
    identity = secrets.randbits(16)
    data = encode_question(question, identity, OUR_BYTES)
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.create_datagram_endpoint(
        lambda: _Reply(question, identity), remote_addr=(server, port)
    )
    try:
        response = await protocol.received
    finally:
        transport.close()
    return await _exchange_tcp(data, question, identity, server, port) if response.header.tc else response


async def _exchange_tcp(
    data: bytes, question: DNSQuestion, identity: int, server: str, port: int
) -> DNSRecord:
    reader, writer = await asyncio.open_connection(server, port)
    try:
        writer.write(len(data).to_bytes(2, "big") + data)
        size = int.from_bytes(await reader.readexactly(2), "big")
        return decode_response(await reader.readexactly(size), question, identity)
    except asyncio.IncompleteReadError as error:
        raise MalformedPacket("the connection ended in the middle") from error
    finally:
        writer.close()


class _Reply(asyncio.DatagramProtocol):
    """Waits for the one datagram that answers; others, forged or late, are passed over."""

    def __init__(self, question: DNSQuestion, identity: int) -> None:
        self._question = question
        self._identity = identity
        self.received: asyncio.Future[DNSRecord] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        transport.sendto(encode_question(self._question, self._identity, OUR_BYTES))

    def datagram_received(self, data: bytes, addr: object) -> None:
        try:
            response = decode_response(data, self._question, self._identity)
        except MalformedPacket:
            return
        if not self.received.done():
            self.received.set_result(response)

    def error_received(self, exc: Exception) -> None:
        if not self.received.done():
            self.received.set_exception(exc)
