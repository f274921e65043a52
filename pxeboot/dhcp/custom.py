"""Options that the operator sets by name or number, in the configuration or for a node.

A value is what TOML and JSON can write: a string, a number, true or false, a list, a table. Everything may
also be written as "hex:0102", the bytes themselves. Names are those of RFC 2132 and its successors.
"""

import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv4Address, IPv4Network

from pxeboot.dhcp import values
from pxeboot.dhcp.values import Route, refuse

MAX_BYTES = 1020
"""Of one value: four parts of 255 bytes; a whole reply seldom has more than 1472."""


@dataclass(frozen=True, slots=True)
class Form:
    """How the operator writes a kind of value. `read` raises ValueError."""

    remedy: str
    read: Callable[[object], bytes]


def encode_all(options: Mapping[str, object]) -> dict[int, bytes]:
    """Options by code, as they go on the wire. Raises ValueError: `name: what is wrong`."""
    encoded: dict[int, bytes] = {}
    for name, value in options.items():
        code = code_of(name)
        if code in encoded:
            raise ValueError(f"{name}: option {code} is set twice, by its name and by its number")
        try:
            encoded[code] = _read(_form(code), value)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
    return encoded


def code_of(name: str) -> int:
    """The code of an option by name or number. Raises ValueError where it is not for operators to set."""
    code = int(name) if re.fullmatch(r"\d{1,3}", name) else _CODES.get(name)
    if code is None:
        near = difflib.get_close_matches(name, _CODES, 1)
        raise ValueError(f"{name}: no option has this name" + (f"; {near[0]!r} has" if near else ""))
    if not 0 < code < 255:
        raise ValueError(f"{name}: option numbers are 1 to 254")
    if code in _OURS:
        raise ValueError(f"{name}: option {code} {_OURS[code]}")
    return code


def remedy(name: str) -> str:
    """How to write this option, for a hint."""
    try:
        return f"write {_form(code_of(name)).remedy}"
    except ValueError:
        return 'write options by name or number, like ntp-servers = ["10.0.0.1"] or "224" = "hex:0102"'


def _form(code: int) -> Form:
    return _TABLE[code][1] if code in _TABLE else _ANY


def _read(form: Form, value: object) -> bytes:
    raw = _hex(value) if isinstance(value, str) and value.startswith("hex:") else form.read(value)
    return raw if len(raw) <= MAX_BYTES else refuse(f"{len(raw)} bytes are more than {MAX_BYTES}")


def _hex(text: str) -> bytes:
    try:
        return bytes.fromhex(text.removeprefix("hex:").replace(":", ""))
    except ValueError:
        raise ValueError(f"{text!r} is not hex: and pairs of hexadecimal digits") from None


def _items(value: object) -> list[str]:
    """A list of strings, or one string with commas, as the command line has it."""
    items = value.split(",") if isinstance(value, str) else value
    if not isinstance(items, list) or not items or not all(isinstance(item, str) for item in items):
        raise ValueError(f"{value!r} is not a list of strings")
    return [item.strip() for item in items]


def _ipv4(text: object) -> IPv4Address:
    try:
        return IPv4Address(text if isinstance(text, str) else "")
    except ValueError:
        raise ValueError(f"{text!r} is not an IPv4 address") from None


def _address(value: object) -> bytes:
    return values.encode_address(_ipv4(value))


def _addresses(value: object) -> bytes:
    return values.encode_addresses(_ipv4(item) for item in _items(value))


def _pairs(value: object) -> bytes:
    raw = _addresses(value)
    return raw if len(raw) % 8 == 0 else refuse(f"{value!r} is not addresses in pairs")


def _text(value: object) -> bytes:
    if not isinstance(value, str) or not value or not value.isprintable():
        refuse(f"{value!r} is not a line of text")
    return values.encode_text(str(value))


def _number(lowest: int, highest: int, encode: Callable[[int], bytes], value: object) -> bytes:
    number = int(value) if isinstance(value, str) and re.fullmatch(r"-?\d{1,10}", value) else value
    if isinstance(number, bool) or not isinstance(number, int) or not lowest <= number <= highest:
        raise ValueError(f"{value!r} is not a number from {lowest} to {highest}")
    return encode(number)


def _numbers(value: object) -> bytes:
    items = value.split(",") if isinstance(value, str) else value
    if not isinstance(items, list) or not items:
        raise ValueError(f"{value!r} is not a list of numbers")
    return b"".join(_number(0, 0xFFFF, values.encode_uint16, item) for item in items)


def _flag(value: object) -> bytes:
    words = {True: True, False: False, "true": True, "false": False}
    if not isinstance(value, bool | str) or value not in words:
        raise ValueError(f"{value!r} is neither true nor false")
    return values.encode_uint8(words[value])


def _domains(value: object) -> bytes:
    try:
        return values.encode_domains(_items(value))
    except UnicodeEncodeError:
        raise ValueError(f"{value!r} has letters outside ASCII; write xn-- names") from None


def _routes(value: object) -> bytes:
    return values.encode_routes(_route(item) for item in _items(value))


def _route(text: str) -> Route:
    destination, _, router = (part.strip() for part in text.partition(" via "))
    try:
        return Route(IPv4Network(destination), _ipv4(router))
    except ValueError as error:
        raise ValueError(f"{text!r}: {error}") from None


def _suboptions(value: object) -> bytes:
    if not isinstance(value, Mapping) or not value:
        raise ValueError(f"{value!r} is not a table of sub-options")
    return values.encode_suboptions({_subcode(code): _subvalue(raw) for code, raw in value.items()})


def _subcode(code: object) -> int:
    if not re.fullmatch(r"\d{1,3}", str(code)) or not 0 < int(str(code)) < 255:
        raise ValueError(f"{code!r} is not the number of a sub-option, 1 to 254")
    return int(str(code))


def _subvalue(value: object) -> bytes:
    raw = _read(_ANY, value)
    return raw if len(raw) <= 255 else refuse(f"a sub-option has 255 bytes at most, not {len(raw)}")


_ANY = Form('bytes as "hex:0102", or a line of text', _text)
_ADDRESS = Form('one IPv4 address, like "10.0.0.1"', _address)
_ADDRESSES = Form('IPv4 addresses, like ["10.0.0.1", "10.0.0.2"]', _addresses)
_PAIRS = Form('IPv4 addresses in pairs, like ["10.1.0.0", "10.0.0.1"]', _pairs)
_TEXT = Form("a line of text", _text)
_UINT8 = Form("a number from 0 to 255", partial(_number, 0, 0xFF, values.encode_uint8))
_UINT16 = Form("a number from 0 to 65535", partial(_number, 0, 0xFFFF, values.encode_uint16))
_UINT32 = Form("a number from 0 to 4294967295", partial(_number, 0, 0xFFFFFFFF, values.encode_uint32))
_INT32 = Form("seconds east of Greenwich", partial(_number, -(1 << 31), (1 << 31) - 1, values.encode_int32))
_NUMBERS = Form("numbers from 0 to 65535, like [1500, 9000]", _numbers)
_FLAG = Form("true or false", _flag)
_DOMAINS = Form('domain names, like ["boot.example", "example"]', _domains)
_ROUTES = Form('routes, like ["10.0.0.0/8 via 10.77.0.2", "0.0.0.0/0 via 10.77.0.1"]', _routes)
_SUBOPTIONS = Form('a table of sub-options, like { "6" = "hex:08", "128" = "a text" }', _suboptions)

_TABLE: dict[int, tuple[str, Form]] = {
    # RFC 2132, but for the codes below that are the server's own
    2: ("time-offset", _INT32),
    3: ("routers", _ADDRESSES),
    4: ("time-servers", _ADDRESSES),
    5: ("ien116-name-servers", _ADDRESSES),
    6: ("domain-name-servers", _ADDRESSES),
    7: ("log-servers", _ADDRESSES),
    8: ("cookie-servers", _ADDRESSES),
    9: ("lpr-servers", _ADDRESSES),
    10: ("impress-servers", _ADDRESSES),
    11: ("resource-location-servers", _ADDRESSES),
    12: ("host-name", _TEXT),
    13: ("boot-size", _UINT16),
    14: ("merit-dump", _TEXT),
    15: ("domain-name", _TEXT),
    16: ("swap-server", _ADDRESS),
    17: ("root-path", _TEXT),
    18: ("extensions-path", _TEXT),
    19: ("ip-forwarding", _FLAG),
    20: ("non-local-source-routing", _FLAG),
    21: ("policy-filter", _PAIRS),
    22: ("max-dgram-reassembly", _UINT16),
    23: ("default-ip-ttl", _UINT8),
    24: ("path-mtu-aging-timeout", _UINT32),
    25: ("path-mtu-plateau-table", _NUMBERS),
    26: ("interface-mtu", _UINT16),
    27: ("all-subnets-local", _FLAG),
    28: ("broadcast-address", _ADDRESS),
    29: ("perform-mask-discovery", _FLAG),
    30: ("mask-supplier", _FLAG),
    31: ("router-discovery", _FLAG),
    32: ("router-solicitation-address", _ADDRESS),
    33: ("static-routes", _PAIRS),
    34: ("trailer-encapsulation", _FLAG),
    35: ("arp-cache-timeout", _UINT32),
    36: ("ieee802-3-encapsulation", _FLAG),
    37: ("default-tcp-ttl", _UINT8),
    38: ("tcp-keepalive-interval", _UINT32),
    39: ("tcp-keepalive-garbage", _FLAG),
    40: ("nis-domain", _TEXT),
    41: ("nis-servers", _ADDRESSES),
    42: ("ntp-servers", _ADDRESSES),
    43: ("vendor-specific", _SUBOPTIONS),
    44: ("netbios-name-servers", _ADDRESSES),
    45: ("netbios-dd-servers", _ADDRESSES),
    46: ("netbios-node-type", _UINT8),
    47: ("netbios-scope", _TEXT),
    48: ("font-servers", _ADDRESSES),
    49: ("x-display-managers", _ADDRESSES),
    64: ("nisplus-domain", _TEXT),
    65: ("nisplus-servers", _ADDRESSES),
    66: ("tftp-server-name", _TEXT),
    67: ("bootfile-name", _TEXT),
    68: ("mobile-ip-home-agents", _ADDRESSES),
    69: ("smtp-servers", _ADDRESSES),
    70: ("pop3-servers", _ADDRESSES),
    71: ("nntp-servers", _ADDRESSES),
    72: ("www-servers", _ADDRESSES),
    73: ("finger-servers", _ADDRESSES),
    74: ("irc-servers", _ADDRESSES),
    75: ("streettalk-servers", _ADDRESSES),
    76: ("streettalk-directory-assistance-servers", _ADDRESSES),
    100: ("posix-timezone", _TEXT),  # RFC 4833
    101: ("tzdb-timezone", _TEXT),
    108: ("ipv6-only-preferred", _UINT32),  # RFC 8925, seconds
    114: ("captive-portal", _TEXT),  # RFC 8910
    116: ("auto-config", _UINT8),  # RFC 2563
    117: ("name-service-search", _NUMBERS),  # RFC 2937
    119: ("domain-search", _DOMAINS),  # RFC 3397
    121: ("classless-static-routes", _ROUTES),  # RFC 3442
    138: ("capwap-ac", _ADDRESSES),  # RFC 5417
    150: ("tftp-server-addresses", _ADDRESSES),  # RFC 5859
    161: ("mud-url", _TEXT),  # RFC 8520
    209: ("pxelinux-configfile", _TEXT),  # RFC 5071
    210: ("pxelinux-pathprefix", _TEXT),
    211: ("pxelinux-reboottime", _UINT32),  # seconds
    249: ("ms-classless-static-routes", _ROUTES),
    252: ("wpad", _TEXT),
}
_CODES = {name: code for code, (name, _) in _TABLE.items()}
_BY_LEASE = "follows from the network's lease_seconds"
_BY_PROTOCOL = "is part of the protocol's own working"
_OURS: dict[int, str] = {
    1: "follows from the network's subnet",
    51: _BY_LEASE,
    58: _BY_LEASE,
    59: _BY_LEASE,
    60: "only answers what the client said: firmware that hears it unasked goes astray",
    **dict.fromkeys((50, 52, 53, 54, 55, 56, 57, 61, 82, 93, 94, 97, 118, 175), _BY_PROTOCOL),
}
"""Codes that operators do not set, and why."""
