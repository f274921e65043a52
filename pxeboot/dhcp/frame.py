"""An IPv4 datagram made by hand, for a client that has no address yet and so answers no ARP."""

import struct
from ipaddress import IPv4Address

_IP = struct.Struct("!BBHHHBBH4s4s")
_UDP = struct.Struct("!HHHH")
_TTL, _PROTOCOL_UDP = 64, 17


def udp_datagram(
    source: tuple[IPv4Address, int], destination: tuple[IPv4Address, int], payload: bytes
) -> bytes:
    """IPv4 (RFC 791) and UDP (RFC 768) headers with their checksums, and the payload."""
    from_address, from_port = source[0].packed, source[1]
    to_address, to_port = destination[0].packed, destination[1]
    length = _UDP.size + len(payload)
    pseudo = from_address + to_address + struct.pack("!BBH", 0, _PROTOCOL_UDP, length)
    udp = _UDP.pack(from_port, to_port, length, 0)
    checksum = internet_checksum(pseudo + udp + payload) or 0xFFFF  # 0 would say "none"
    fields = (0x45, 0, _IP.size + length, 0, 0, _TTL, _PROTOCOL_UDP, 0, from_address, to_address)
    ip = bytearray(_IP.pack(*fields))
    struct.pack_into("!H", ip, 10, internet_checksum(bytes(ip)))
    return bytes(ip) + _UDP.pack(from_port, to_port, length, checksum) + payload


def internet_checksum(data: bytes) -> int:
    """The one's complement of the one's complement sum of 16-bit words (RFC 1071)."""
    if len(data) % 2:
        data += b"\0"
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
