"""Boot tokens: what a node shows with every request, signed by the server, pure functions."""

import hashlib
import hmac
import struct
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass

from pxeboot.mac import Mac

LIFETIME_SECONDS = 7 * 24 * 3600
"""Long enough for a server that is away over a weekend; nodes that live get a new one with a heartbeat."""
RENEW_SECONDS = 24 * 3600
"""A token older than this is replaced at the next heartbeat."""
SIGNATURE_BYTES = 16

_CLAIM = struct.Struct("!8s6s32sQ")


class TokenRefusedError(Exception):
    """A token that is not ours, damaged, or too old; the message says which."""


@dataclass(frozen=True, slots=True)
class Claim:
    """What a token says: one boot of one machine, and the image it may load. `expires` in Unix seconds."""

    boot_id: str
    """16 hexadecimal digits."""
    mac: Mac
    image: str
    """The image digest, 64 hexadecimal digits."""
    expires: int


def sign(claim: Claim, secret: bytes) -> str:
    """The token, in letters that stand in a URL and on a kernel command line."""
    body = _CLAIM.pack(
        bytes.fromhex(claim.boot_id), claim.mac.packed, bytes.fromhex(claim.image), claim.expires
    )
    return urlsafe_b64encode(body + _signature(body, secret)).rstrip(b"=").decode()


def verify(token: str, secret: bytes, now: float) -> Claim:
    """Read a token. Raises TokenRefusedError, and nothing else, for any text."""
    try:
        raw = urlsafe_b64decode(token.encode("ascii") + b"=" * (-len(token) % 4))
        body, signature = raw[: _CLAIM.size], raw[_CLAIM.size :]
        boot_id, mac, image, expires = _CLAIM.unpack(body)
    except (ValueError, struct.error) as error:
        raise TokenRefusedError("it is no token") from error
    if not hmac.compare_digest(signature, _signature(body, secret)):
        raise TokenRefusedError("its signature is not ours")
    if now >= expires:
        raise TokenRefusedError("it has expired")
    return Claim(boot_id.hex(), Mac.from_bytes(mac), image.hex(), expires)


def _signature(body: bytes, secret: bytes) -> bytes:
    return hmac.digest(secret, b"pxeboot boot token\0" + body, hashlib.sha256)[:SIGNATURE_BYTES]
