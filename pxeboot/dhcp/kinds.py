"""Questions known by their bytes: what the machines of one make ask differs in a few places only.

A storm is thousands of machines that ask the same thing. Reading the first tells what the others of its
kind mean, whose bytes are the same but for a few fields and options at places that are the same too.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from operator import itemgetter
from typing import Any

from pxeboot.dhcp import options, packet
from pxeboot.dhcp.form import Form
from pxeboot.dhcp.options import END, PAD, MessageType
from pxeboot.dhcp.packet import BOOTREPLY, BOOTREQUEST, CHADDR, CIADDR, OPTIONS_AT, XID, Packet
from pxeboot.dhcp.relay import RELAY_PORT
from pxeboot.dhcp.responder import HOST_NAME, Unicast
from pxeboot.dhcp.verdict import Asks, classify
from pxeboot.errors import MalformedPacket
from pxeboot.pxe.client import Client, identify
from pxeboot.pxe.policy import Decision
from pxeboot.site import Network

MAX_KINDS = 256
"""Known at once; all are forgotten when there are more, and the common ones soon known again."""
MAX_LAYOUTS = 8
"""Of one length: each is tried in turn, and nobody shall make that long."""
_SECS = slice(8, 10)
_BLANK_FIELDS = (XID, _SECS, CIADDR, CHADDR)
_WANTED = options.REQUESTED_ADDRESS.code
_BLANK_OPTIONS = (options.HOST_NAME.code, _WANTED, options.CLIENT_IDENTIFIER.code)
_NEVER = (
    options.OVERLOAD_CODE,  # options elsewhere in the packet
    options.SUBNET_SELECTION.code,
    options.RELAY_AGENT_INFORMATION.code,  # another value for every port of a switch
    options.CLIENT_MACHINE_IDENTIFIER.code,  # a node may be known by it
)
"""Options whose readers ask more than a kind can answer."""
_ADDRESS_BYTES = 4
ZERO = bytes(_ADDRESS_BYTES)
_CHADDR_PADDING = bytes(10)


@dataclass(slots=True)
class Answer:
    """The reply to questions of one kind by machines of one group: what all have the same, and the blanks."""

    decision: Decision
    """Why nothing is booted."""
    head: bytes
    """Up to xid."""
    flags: bytes
    """With secs before them."""
    relay: bytes
    """siaddr, and giaddr as asked."""
    parts: tuple[tuple[bytes, slice | None], ...]
    """From the end of chaddr on: what stands before each blank, and where the question has what goes there;
    None: our name for the machine."""
    end: bytes

    def fill(self, data: bytes, address: IPv4Address, host_name: bytes) -> bytes:
        """The reply to the question `data`."""
        pieces = [
            self.head,
            data[XID],
            self.flags,
            data[CIADDR],
            address.packed,
            self.relay,
            data[CHADDR],
        ]
        for before, place in self.parts:
            pieces += before, host_name if place is None else data[place]
        pieces.append(self.end)
        return b"".join(pieces)


@dataclass(slots=True)
class Kind:
    """What all questions of one kind have in common."""

    request: Packet
    """The first of them."""
    client: Client
    network: Network
    asks: Asks | None
    """SELECTING or RENEWING; None: it is a DISCOVER."""
    wanted: slice | None
    """Where the address is that it asks for: in option 50, or in ciaddr for RENEWING."""
    blanks: dict[int, slice]
    """Where the options have their values that the reply has too."""
    way_back: Unicast | None
    """To the relay, where there is one."""
    answers: dict[object, Answer] = field(default_factory=dict)
    """By what the asker keeps apart: its terms and the length of its name."""

    def answer(self, form: Form, decision: Decision) -> Answer:
        """The reply whose options are written in `form`, for questions of this kind."""
        request = self.request
        parts = [(before, None if code == HOST_NAME else self.blanks[code]) for before, code in form.parts]
        ends = [before for before, _ in parts]
        ends.append(form.end)
        ends[0] = _CHADDR_PADDING + ends[0]
        return Answer(
            decision,
            bytes((BOOTREPLY, request.htype, len(request.chaddr), 0)),
            bytes(2) + request.flags.to_bytes(2, "big"),
            ZERO + request.giaddr.packed,
            tuple((before, place) for before, (_, place) in zip(ends, parts, strict=False)),
            ends[-1],
        )


@dataclass(slots=True)
class _Layout:
    """Where questions of the same length and options have their blanks."""

    between: tuple[slice, ...]
    """Where everything else is."""
    static: Callable[[bytes], Any]
    """What a datagram has there, as a tuple of bytes."""
    kinds: dict[Any, Kind] = field(default_factory=dict)


class Kinds:
    """Kinds of DISCOVER and REQUEST of machines that only want an address."""

    def __init__(self, server: IPv4Address) -> None:
        """`server` is our name to clients."""
        self._server = server
        self._layouts: dict[int, list[_Layout]] = {}
        self._count = 0

    def clear(self) -> None:
        """Forget all: what holds for a kind follows from the configuration."""
        self._layouts, self._count = {}, 0

    def find(self, data: bytes) -> Kind | None:
        """The kind of a datagram, None where it is not known."""
        for layout in self._layouts.get(len(data), ()):
            kind = layout.kinds.get(layout.static(data))
            if kind is not None:
                return kind if (kind.asks is Asks.RENEWING) == (data[CIADDR] != ZERO) else None
        return None

    def learn(self, data: bytes, network_of: Callable[[Packet], Network | None]) -> Kind | None:
        """Know the kind of a datagram from now on; None where it is none that can be known by its bytes."""
        places = _places(data)
        if places is None:
            return None
        try:
            request = packet.decode(data)
            kind = self._read(data, request, places, network_of(request))
        except MalformedPacket:
            return None
        if kind is not None:
            self._add(data, kind, places)
        return kind

    def _read(
        self, data: bytes, request: Packet, places: dict[int, slice], network: Network | None
    ) -> Kind | None:
        client, wanted = identify(request), places.get(_WANTED)
        if request.op != BOOTREQUEST or client.wants_boot or network is None or network.config.mode != "dhcp":
            return None
        if wanted is not None and wanted.stop - wanted.start != _ADDRESS_BYTES:
            return None
        asks = None
        if request.message_type is MessageType.REQUEST:
            asks, _ = classify(request, self._server)
            if asks not in (Asks.SELECTING, Asks.RENEWING) or (asks is Asks.SELECTING and wanted is None):
                return None
        elif request.message_type is not MessageType.DISCOVER:
            return None
        if (asks is Asks.RENEWING) != (data[CIADDR] != ZERO):
            return None
        return Kind(
            request,
            client,
            network,
            asks,
            CIADDR if asks is Asks.RENEWING else wanted,
            {code: place for code, place in places.items() if code == options.CLIENT_IDENTIFIER.code},
            Unicast(request.giaddr, RELAY_PORT) if request.giaddr.packed != ZERO else None,
        )

    def _add(self, data: bytes, kind: Kind, places: dict[int, slice]) -> None:
        if self._count >= MAX_KINDS:
            self.clear()
        self._count += 1
        blanks = sorted([*_BLANK_FIELDS, *places.values()], key=lambda place: place.start)
        starts = [0, *[place.stop for place in blanks]]
        ends = [*[place.start for place in blanks], len(data)]
        between = tuple(slice(start, end) for start, end in zip(starts, ends, strict=True))
        layouts = self._layouts.setdefault(len(data), [])
        layout = next((item for item in layouts if item.between == between), None)
        if layout is None:
            if len(layouts) >= MAX_LAYOUTS:
                layouts.clear()
            layout = _Layout(between, itemgetter(*between))
            layouts.append(layout)
        layout.kinds[layout.static(data)] = kind


def _places(data: bytes) -> dict[int, slice] | None:
    """Where the options have values that differ from machine to machine; None where that is not plain."""
    places: dict[int, slice] = {}
    seen: set[int] = set()
    at = OPTIONS_AT
    while at < len(data) and data[at] != END:
        code = data[at]
        if code == PAD:
            at += 1
            continue
        if at + 1 >= len(data) or code in seen or code in _NEVER:
            return None  # cut off; in parts (RFC 3396); or not to be known by bytes
        seen.add(code)
        end = at + 2 + data[at + 1]
        if code in _BLANK_OPTIONS:
            places[code] = slice(at + 2, end)
        at = end
    return places
