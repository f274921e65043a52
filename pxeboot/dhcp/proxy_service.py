"""A ProxyDHCP server's answers: overheard at port 67, asked at port 4011."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from ipaddress import IPv4Address

from pxeboot.dhcp import packet, proxy
from pxeboot.dhcp.options import MessageType
from pxeboot.dhcp.packet import BOOTREQUEST, Packet
from pxeboot.dhcp.responder import Reply
from pxeboot.dhcp.terms import Terms
from pxeboot.errors import MalformedPacket
from pxeboot.inventory.progress import Progress
from pxeboot.pxe.client import Client, identify
from pxeboot.pxe.policy import Decision

log = logging.getLogger(__name__)


class ProxyService:
    """Tells machines what to boot and gives no addresses."""

    def __init__(
        self,
        decide: Callable[[Client], Awaitable[tuple[Decision, Terms] | None]],
        progress: Progress,
        send: Callable[[Reply], None],
    ) -> None:
        """`decide` gives None for whom we ignore; `send` takes the answers at port 67."""
        self._decide = decide
        self._progress = progress
        self._send = send

    async def overhear(self, kind: MessageType, request: Packet, client: Client) -> None:
        """Take a request that everybody on the network hears; only a DISCOVER is for a proxy as well."""
        if kind is MessageType.DISCOVER:
            await self._discover(request, client)
        elif kind in (MessageType.REQUEST, MessageType.INFORM):
            await self._note_address(request, client)

    async def answer(self, data: bytes, peer: tuple[IPv4Address, int]) -> Reply | None:
        """Take a datagram from port 4011; its answer leaves from there. None: none is due."""
        try:
            request = packet.decode(data)
            client = identify(request)
            kind = request.message_type
        except MalformedPacket as error:
            log.debug("dropped a packet at port %d: %s", proxy.BOOT_SERVER_PORT, error)
            return None
        if request.op != BOOTREQUEST or kind not in (MessageType.REQUEST, MessageType.INFORM):
            return None
        try:
            await self._note_address(request, client)
        except OSError as error:
            log.error("%s: its step is not on disk: %s", client.mac, error)  # an answer needs no disk
        decided = await self._decide(client)
        if decided is None:
            return None
        decision, terms = decided
        log.log(_level(decision), "%s: asks the boot server: %s", client.mac, decision)
        if not decision.bootfile:
            return None
        return proxy.boot_server_ack(request, client, terms, decision, peer)

    async def _discover(self, request: Packet, client: Client) -> None:
        if not client.wants_boot:
            return
        decided = await self._decide(client)
        if decided is None:
            return
        decision, terms = decided
        log.log(_level(decision), "%s: no address from us, %s", client.mac, decision)
        if not decision.bootfile:
            if not decision.ignored:
                await self._progress.seen(client)
            return
        self._send(proxy.offer(request, client, terms, decision))
        # Both at once, for its REQUEST to the other server may be here before the first is on disk.
        await asyncio.gather(self._progress.seen(client), self._progress.discovered(client))

    async def _note_address(self, request: Packet, client: Client) -> None:
        address = proxy.address_taken(request)
        if address is None:
            return
        self._progress.sighted(client.mac, address)
        if client.wants_boot:
            await self._progress.addressed(client, address)


def _level(decision: Decision) -> int:
    return logging.WARNING if decision.ignored else logging.INFO
