"""Replies filled in, not written: what the machines of one make are told differs in a few places only."""

import struct
from dataclasses import dataclass
from ipaddress import IPv4Address

from pxeboot.dhcp import options, responder
from pxeboot.dhcp.options import END, MessageType, encode_options
from pxeboot.dhcp.packet import BOOTREPLY, MIN_BYTES, OPTIONS_AT, Packet, encode
from pxeboot.dhcp.responder import ECHOED, HOST_NAME, Destination, Reply
from pxeboot.dhcp.terms import Terms
from pxeboot.pxe.client import Client
from pxeboot.pxe.policy import Decision

MAX_FORMS = 1024
"""Kept at once; a site has a handful: networks and groups, times makes of machine."""

_HEAD = struct.Struct("!BBBBIHHIIII16s")
MAX_OPTION_BYTES = 255
_PARAMETER_REQUEST_LIST = options.PARAMETER_REQUEST_LIST.code
_MAX_MESSAGE_SIZE = options.MAX_MESSAGE_SIZE.code


@dataclass(frozen=True, slots=True)
class Filled:
    """A reply as bytes, and where it goes."""

    payload: bytes
    destination: Destination


@dataclass(frozen=True, slots=True)
class Form:
    """An encoded reply with blanks, from `sname` on."""

    terms: Terms
    """What it was made of; held, so that no other terms can have the same `id`."""
    parts: tuple[tuple[bytes, int], ...]
    """What stands before each blank, and the blank's option code."""
    end: bytes


class Forms:
    """OFFER and ACK for machines that are not told what to boot, byte for byte as `responder` writes them.

    The first of a kind is written by `responder`, and a form made of it. The kind is all that a reply
    depends on but the values of its fields and blanks; that nothing is missing in it is a property test's
    matter. A filled form takes a fifth of the time.
    """

    def __init__(self) -> None:
        self._forms: dict[tuple[object, ...], Form] = {}

    def grant(
        self,
        kind: MessageType,
        request: Packet,
        client: Client,
        terms: Terms,
        address: IPv4Address,
        decision: Decision,
        name: str,
    ) -> Reply | Filled:
        """`responder.offer` or `responder.ack`, by `kind`. An ACK leaves only when its lease is on disk."""
        host_name = name.encode()
        key = _key(kind, request, terms, host_name)
        form = None if decision.bootfile else self._forms.get(key)
        if form is None:
            write = responder.offer if kind is MessageType.OFFER else responder.ack
            reply = write(request, client, terms, address, decision, name)
            if not decision.bootfile:
                self._keep(key, form_of(reply.packet, terms))
            return reply
        payload = _fill(form, request, address, host_name)
        return Filled(payload, responder.destination(request, address, terms.relay_port))

    def _keep(self, key: tuple[object, ...], form: Form | None) -> None:
        if form is not None:
            if len(self._forms) >= MAX_FORMS:
                self._forms.clear()
            self._forms[key] = form


def _key(kind: MessageType, request: Packet, terms: Terms, host_name: bytes) -> tuple[object, ...]:
    """What a reply without boot file depends on, but for the values that are filled in."""
    asked = request.options
    return (
        kind,
        id(terms),
        len(host_name),
        asked.get(_PARAMETER_REQUEST_LIST),
        asked.get(_MAX_MESSAGE_SIZE),
        *[len(asked[code]) if code in asked else None for code in ECHOED],
    )


def form_of(reply: Packet, terms: Terms) -> Form | None:
    """The options of a reply as a form; None where a blank would be longer than one option can be."""
    blanks = ECHOED if HOST_NAME in terms.available else (HOST_NAME, *ECHOED)
    parts: list[tuple[bytes, int]] = []
    # sname, file and the magic cookie; nothing is told of booting, so that the fields are empty.
    before = encode(reply)[_HEAD.size : OPTIONS_AT]
    for code, value in reply.options.items():
        if code not in blanks:
            before += encode_options({code: value})
            continue
        if len(value) > MAX_OPTION_BYTES:
            return None
        parts.append((before + bytes((code, len(value))), code))
        before = b""
    size = _HEAD.size + sum(len(part) + len(reply.options[code]) for part, code in parts)
    end = before + bytes((END,))
    return Form(terms, tuple(parts), end.ljust(MIN_BYTES - size, b"\0"))


def _fill(form: Form, request: Packet, address: IPv4Address, host_name: bytes) -> bytes:
    chaddr = request.chaddr
    head = _HEAD.pack(
        BOOTREPLY,
        request.htype,
        len(chaddr),
        0,
        request.xid,
        0,
        request.flags,
        int(request.ciaddr),
        int(address),
        0,
        int(request.giaddr),
        chaddr,
    )
    pieces = [head]
    for before, code in form.parts:
        pieces += before, host_name if code == HOST_NAME else request.options[code]
    pieces.append(form.end)
    return b"".join(pieces)
