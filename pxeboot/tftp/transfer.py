"""One TFTP read as a pure state machine: the client's packets and the time in, our packets out.

RFC 1350, 1123 §4.2.3 (Sorcerer's Apprentice, back-off), 2347 to 2349 (options), 7440 (windows).
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from pxeboot.errors import PxebootError
from pxeboot.tftp.packet import (
    Ack,
    Data,
    Error,
    ErrorCode,
    OptionAck,
    ReadRequest,
    WriteRequest,
    decode,
    encode,
)

MAX_WAIT_S = 8.0
"""The back-off's end. A client may ask for time-outs up to 255 s, but a packet too early costs less than a
transfer that holds its place for an hour after its client has gone."""

MAX_NETASCII = 64 * 1024
"""Largest file translated, bytes. Each netascii transfer holds its own copy, and only texts are meant by it:
a loader asked for in netascii by mistake would arrive spoiled."""


@dataclass(frozen=True, slots=True)
class TftpLimits:
    """What a client can be granted, and how many at once."""

    max_block_size: int = 1468
    """Bytes: Ethernet 1500 - IP 20 - UDP 8 - TFTP 4."""
    max_window_size: int = 64
    """Blocks."""
    max_transfers: int = 4096


@dataclass(frozen=True, slots=True)
class Granted:
    """The outcome of the options' negotiation: what the OACK says, and nothing when there is none."""

    options: Mapping[str, int] = field(default_factory=dict)

    @property
    def block_size(self) -> int:
        """Bytes."""
        return self.options.get("blksize", 512)

    @property
    def window_size(self) -> int:
        """Blocks sent before an ACK is waited for."""
        return self.options.get("windowsize", 1)

    @property
    def timeout_s(self) -> int | None:
        """The client's wish for the first wait before a retransmission."""
        return self.options.get("timeout")


NO_OPTIONS = Granted()


def _block_size(asked: int, limits: TftpLimits, size: int) -> int:
    return min(max(asked, 8), limits.max_block_size)  # RFC 2348: 8 to 65464


def _window_size(asked: int, limits: TftpLimits, size: int) -> int:
    return min(max(asked, 1), limits.max_window_size)  # RFC 7440 §3: 1 to 65535


def _timeout(asked: int, limits: TftpLimits, size: int) -> int | None:
    return asked if 1 <= asked <= 255 else None  # RFC 2349: the same value, or no answer to it


def _size(asked: int, limits: TftpLimits, size: int) -> int | None:
    return size or None  # RFC 2349. curl (7.88) breaks off when it is told that a file has 0 bytes


_NUMBER = re.compile(r"[0-9]{1,20}")

_ANSWERS: dict[str, Callable[[int, TftpLimits, int], int | None]] = {
    "blksize": _block_size,
    "timeout": _timeout,
    "tsize": _size,
    "windowsize": _window_size,
}


def negotiate(asked: Mapping[str, str], limits: TftpLimits, size: int) -> Granted:
    """Grant what was asked for and is known, within `limits`; the rest is left out, never refused.

    `size` is the file's, in bytes. Source: RFC 2347; a client breaks off at an option it did not ask for
    (node-tftp#14).
    """
    options: dict[str, int] = {}
    for name, value in asked.items():
        answer = _ANSWERS.get(name)
        if answer is None or not _NUMBER.fullmatch(value):
            continue
        granted = answer(int(value), limits, size)
        if granted is not None:
            options[name] = granted
    return Granted(options)


def refusal(request: ReadRequest | WriteRequest) -> Error | None:
    """The answer to a request that no file can satisfy, or None."""
    if isinstance(request, WriteRequest):
        return Error(ErrorCode.ACCESS_VIOLATION, "This server is read-only")
    if request.mode not in ("octet", "netascii"):
        return Error(ErrorCode.ILLEGAL_OPERATION, "Mode is neither octet nor netascii")
    return None


def plain_name(name: str) -> str:
    """A file's name without what firmware makes of it: backslashes for slashes, slashes in front."""
    return name.replace("\\", "/").lstrip("/")


def translate(content: bytes | memoryview, mode: str) -> bytes | memoryview:
    """The bytes that go over the wire: `content` itself in octet mode, with CR LF line ends in netascii.

    Raises PxebootError when it is too large to be a text. Source: RFC 1350 §2; RFC 764 (CR alone is CR NUL).
    """
    if mode != "netascii":
        return content
    if len(content) > MAX_NETASCII:
        raise PxebootError(f"netascii is for texts up to {MAX_NETASCII} bytes", "Ask for it in octet mode.")
    return bytes(content).replace(b"\r", b"\r\0").replace(b"\n", b"\r\n")


class Transfer:
    """Sends `content` to one client.

    `start` once, `receive` for each of its datagrams, `tick` when `deadline` has come; each returns the
    packets to send now. All times are seconds of one clock, which never goes back. It has ended when `result`
    is not None.

    Blocks are counted from 1 without wrapping; the OACK, when there is one, takes the place of block 0, which
    is how clients acknowledge it.
    """

    def __init__(
        self,
        content: bytes | memoryview,
        granted: Granted = NO_OPTIONS,
        retransmit_s: float = 1.0,
        max_retransmits: int = 10,
    ) -> None:
        """`retransmit_s` holds where the client asked for no `timeout`; it doubles with each retransmission
        in a row, up to MAX_WAIT_S. After `max_retransmits` in a row the client is given up: 71 s of silence
        with the values given here.
        """
        self._content = memoryview(content)
        self._granted = granted
        self._retransmit_s = granted.timeout_s or retransmit_s
        self._max_retransmits = max_retransmits
        self._last = len(self._content) // granted.block_size + 1  # shorter than the others, maybe empty
        self._acked = -1 if granted.options else 0
        self._sent = self._acked
        self._heard_at: float | None = None
        self._timeouts = 0  # in a row
        self.deadline = math.inf
        """When `tick` is due."""
        self.done = False
        """Ended without a failure."""
        self.failure: str | None = None
        """Why it ended otherwise, in a few words."""
        self.probe = False
        """The client wanted no more than the OACK."""
        self.bytes = 0
        """How much of the content the client has."""
        self.retransmissions = 0
        """Packets sent more than once."""

    @property
    def result(self) -> str | None:
        """`done`, `size probe`, the failure, or None while it goes on."""
        if self.done:
            return "size probe" if self.probe else "done"
        return self.failure

    def start(self, now: float) -> list[bytes]:
        """The first packets: the OACK when options are granted, else the first block."""
        return self._send_window(now)

    def receive(self, data: bytes, now: float) -> list[bytes]:
        """Take one datagram from the client. Raises MalformedPacket; the transfer goes on."""
        packet = decode(data)
        if self.result is not None:
            return []
        if isinstance(packet, Error):
            self._stop(packet)
        if not isinstance(packet, Ack):
            return []
        self._heard_at = now
        ahead = (packet.block - self._acked) & 0xFFFF  # blocks the client gained, wrap-safe
        if not 0 < ahead <= self._sent - self._acked:
            return []  # a repeated ACK is not answered: RFC 1123 §4.2.3.1
        self._acked += ahead
        self._timeouts = 0
        self.bytes = min(self._acked * self._granted.block_size, len(self._content))
        if self._acked == self._last:
            self._finish()
            return []
        return self._send_window(now)  # from the first block missing: RFC 7440 §4

    def tick(self, now: float) -> list[bytes]:
        """Send again what is not acknowledged, if it is time; give up after too many times."""
        if now < self.deadline:
            return []
        self._timeouts += 1
        if self._timeouts <= self._max_retransmits:
            return self._send_window(now)
        # The client's last ACK may be lost and its port closed, so nothing will ever come: it has the file.
        # One that never said a word has not: that is what a firewall in between looks like.
        if self._sent == self._last and self._heard_at is not None:
            self.bytes = len(self._content)
            self._finish()
        else:
            self.abandon(f"no ACK for block {self._sent}" if self._sent else "no ACK for the options")
        return []

    def abandon(self, reason: str) -> None:
        """End it with `reason` as its failure, unless it has ended."""
        if self.result is None:
            self.failure, self.deadline = reason, math.inf

    def takes_repeat(self, now: float) -> bool:
        """Whether the same request, arriving once more, can belong to this transfer.

        It can until the client has answered, and shortly after (a copy late on the way). One that comes
        later is from a machine that was restarted and uses its first port again, as boot ROMs do.
        """
        if self.result is not None:
            return False
        return self._heard_at is None or now - self._heard_at < self._retransmit_s

    def _send_window(self, now: float) -> list[bytes]:
        first = self._acked + 1
        last = min(self._acked + self._granted.window_size, self._last) if first else 0  # OACK goes alone
        self.retransmissions += max(self._sent - first + 1, 0)
        self._sent = last
        self.deadline = now + min(self._retransmit_s * 2**self._timeouts, MAX_WAIT_S)
        return [self._packet(block) for block in range(first, last + 1)]

    def _packet(self, block: int) -> bytes:
        if block == 0:
            return encode(OptionAck({name: str(value) for name, value in self._granted.options.items()}))
        size = self._granted.block_size
        payload = self._content[(block - 1) * size : block * size]
        return encode(Data(block & 0xFFFF, payload))  # wraps to 0, as clients expect of large files

    def _stop(self, error: Error) -> None:
        """The client has sent ERROR. Firmware asks for the size by breaking off after the OACK: EDK2 with
        code 8, BIOS ROMs with code 0; then it asks for the file.
        """
        if self._acked < 0 and error.code in (ErrorCode.NOT_DEFINED, ErrorCode.OPTION_NEGOTIATION):
            self.probe = True
            self._finish()
        else:
            self.abandon(f"client sent error {error.code} {error.message[:100]!r}")

    def _finish(self) -> None:
        self.done, self.deadline = True, math.inf
