"""One TFTP read as a pure state machine: the client's packets and the time in, the blocks to send out.

RFC 1350, 1123 §4.2.3 (Sorcerer's Apprentice, back-off), 2347 to 2349 (options), 7440 (windows).
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from pxeboot.errors import PxebootError
from pxeboot.tftp.packet import Ack, Error, ErrorCode, ReadRequest, WriteRequest, decode

FIRST_WAIT_S = 0.25
"""Until the client's round trips are known. A packet too early costs less than a machine that waits."""
MIN_WAIT_S = 0.01
"""The shortest wait before a retransmission. A client that takes longer for once gets a packet too many, and
is known to be slow from then on."""
ROUND_TRIPS = 3
"""How many of the client's longest recent round trips are waited for."""
MAX_WAIT_S = 8.0
"""The back-off's end. In windows some clients are silent about what they have had, and repeat an ACK that was
lost only when nothing has come for their time: atftp for 5 s, also where it asks for less. To send more often
than that would be to wait for ever."""
TIMEOUTS = 2
"""Or so many of the client's `timeout`, where that is longer: 16 s at most."""
SILENCE_S = 60.0
"""A client that has not moved on for so long is given up: spanning tree may hold a port for 50 s."""
LAST_SILENCE_S = 10.0
"""The same, when it lacks no more than the last window: most have it, and only their last ACK was lost."""
LAST_REPEATS = 4
"""But the last window is sent again as often as this, however slow the client is."""
REPEAT_S = 1.0
"""How late a copy of a request may come after the client's first ACK."""

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
    """Under way at once; as many more wait for their turn."""


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
        """The client's wish for how long to wait before a retransmission."""
        return self.options.get("timeout")


NO_OPTIONS = Granted()


def _block_size(asked: int, limits: TftpLimits, size: int) -> int:
    return min(max(asked, 8), limits.max_block_size)  # RFC 2348: 8 to 65464


def _window_size(asked: int, limits: TftpLimits, size: int) -> int:
    return min(max(asked, 1), limits.max_window_size)  # RFC 7440 §3: 1 to 65535


def _timeout(asked: int, limits: TftpLimits, size: int) -> int | None:
    return asked if 1 <= asked <= 255 else None  # RFC 2349: the same value, or no answer to it


def _size(asked: int, limits: TftpLimits, size: int) -> int:
    return size  # RFC 2349


_TOKEN = re.compile(r"\bboot/[^/]+(?=/)")
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
        if name == "tsize" and size == 0 and "timeout" in asked:
            continue  # curl (7.88), which asks for both, breaks off when told of 0 bytes; EDK2 when not
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


def masked(name: str) -> str:
    """The name as it may stand in a log: the token of an artefact is a secret."""
    return _TOKEN.sub("boot/…", name)


def check_netascii(size: int) -> None:
    """Raises PxebootError when content of that many bytes is too large to be a text."""
    if size > MAX_NETASCII:
        raise PxebootError(f"netascii is for texts up to {MAX_NETASCII} bytes", "Ask for it in octet mode.")


def to_netascii(text: bytes) -> bytes:
    """The same with CR LF line ends. Source: RFC 1350 §2; RFC 764 (CR alone is CR NUL)."""
    return text.replace(b"\r", b"\r\0").replace(b"\n", b"\r\n")


NOTHING = range(0)
"""No block to send."""


class Transfer:
    """Sends a file of `size` bytes to one client.

    `start` once, `receive` (or, for an ACK already read, `acknowledge`) for each of its datagrams, `tick`
    when `deadline` has come; each returns the blocks to send now. All times are seconds of one clock, which
    never goes back. It has ended when `result` is not None.

    Blocks are counted from 1 without wrapping; the OACK, when there is one, takes the place of block 0, which
    is how clients acknowledge it. What a block holds is not known here.
    """

    __slots__ = ("_acked", "_doubtful", "_first_sent_at", "_heard_at", "_last", "_longest_wait",
                 "_round_trip", "_sent", "_sent_at", "_silent_since", "_timeouts", "_window", "granted",
                 "result", "retransmissions", "size")  # fmt: skip

    def __init__(self, size: int, granted: Granted = NO_OPTIONS) -> None:
        self.size = size
        """Of the content, bytes."""
        self.granted = granted
        self.result: str | None = None
        """`done`, `size probe`, the failure in a few words, or None while it goes on."""
        self.retransmissions = 0
        """Packets sent more than once."""
        # The client's `timeout` (RFC 2349) is not the first wait: curl asks for 6 s, U-Boot for 5, and either
        # would take hours for a loader on a link that loses one packet in five.
        self._longest_wait = max(MAX_WAIT_S, TIMEOUTS * min(granted.timeout_s or 0.0, MAX_WAIT_S))
        self._window = granted.window_size
        self._last = size // granted.block_size + 1  # shorter than the others, maybe empty
        self._acked = -1 if granted.options else 0
        self._sent = self._acked
        self._sent_at = self._first_sent_at = self._silent_since = 0.0
        self._heard_at: float | None = None
        self._round_trip = 0.0  # seconds; the longest of late
        self._doubtful = 0.0  # the last one, if the packet was not lost but the client was slow
        self._timeouts = 0  # in a row

    @property
    def done(self) -> bool:
        """Ended without a failure."""
        return self.result in ("done", "size probe")

    @property
    def acknowledged(self) -> int:
        """How much of the content the client has, bytes."""
        return min(max(self._acked, 0) * self.granted.block_size, self.size)

    @property
    def deadline(self) -> float:
        """When `tick` is due."""
        if self.result is not None:
            return math.inf
        wait = FIRST_WAIT_S
        if self._heard_at is not None:
            wait = max(ROUND_TRIPS * self._round_trip, MIN_WAIT_S)
        return self._sent_at + min(math.ldexp(wait, self._timeouts), self._longest_wait)  # doubled each time

    def start(self, now: float) -> range:
        """The first packets: the OACK when options are granted, else the first window."""
        self._silent_since = now
        return self._send_window(now)

    def receive(self, data: bytes, now: float) -> range:
        """Take one datagram from the client. Raises MalformedPacket; the transfer goes on."""
        packet = decode(data)
        if isinstance(packet, Ack):
            return self.acknowledge(packet.block, now)
        if isinstance(packet, Error) and self.result is None:
            self._stop(packet)
        return NOTHING

    def acknowledge(self, block: int, now: float) -> range:
        """Take an ACK of `block`, as it stands on the wire."""
        acked = self._acked
        ahead = (block - acked) & 0xFFFF  # blocks the client gained, wrap-safe
        if not 0 < ahead <= self._sent - acked or self.result is not None:
            if ahead == 0 and self._doubtful:
                self._take_repeated()
            return NOTHING  # a repeated ACK is not answered: RFC 1123 §4.2.3.1
        if self._timeouts:
            self._timeouts = 0  # and which of the copies was acknowledged, nobody knows yet (Karn)
            self._doubtful = now - self._first_sent_at if self._window == 1 else 0.0
        else:
            self._note_round_trip(now - self._sent_at)
            self._doubtful = 0.0
        self._acked = acked = acked + ahead
        self._heard_at = self._silent_since = self._sent_at = now
        if acked == self._last:
            self.result = "done"
            return NOTHING
        last = min(acked + self._window, self._last)
        if self._sent > acked:  # from the first block missing: RFC 7440 §4
            self.retransmissions += self._sent - acked
        self._sent = last
        return range(acked + 1, last + 1)

    @property
    def steps(self) -> int:
        """How many of the next ACKs, each of the block sent last, will call for just the next block, and
        that a whole one: lock step without incident, which `step` counts in one go.
        """
        if self._window > 1 or self.result is not None or self._timeouts or self._acked < 0:
            return 0
        return max(self._last - 1 - self._sent, 0)

    def step(self, count: int, now: float) -> None:
        """Those ACKs have come, `count` of the `steps`, the last of them at `now`."""
        self._note_round_trip((now - self._sent_at) / count)  # their mean
        self._doubtful = 0.0
        self._acked += count
        self._sent += count
        self._heard_at = self._silent_since = self._sent_at = now

    def tick(self, now: float) -> range:
        """Send again what is not acknowledged, if it is time; give up after too long."""
        if now < self.deadline:
            return NOTHING
        # The client's last ACK may be lost and its port closed, so nothing will ever come: it has the file.
        # One that never said a word has not: that is what a firewall in between looks like.
        at_the_end = self._sent == self._last and self._heard_at is not None
        silence = now - self._silent_since
        enough = at_the_end and silence >= LAST_SILENCE_S and self._timeouts >= LAST_REPEATS
        if silence < SILENCE_S and not enough:
            if not self._timeouts:
                self._first_sent_at = self._sent_at
            self._timeouts += 1
            return self._send_window(now)
        if at_the_end:
            self._acked, self.result = self._last, "done"
        else:
            self.abandon(f"no ACK for block {self._sent}" if self._sent else "no ACK for the options")
        return NOTHING

    def abandon(self, reason: str) -> None:
        """End it with `reason` as its failure, unless it has ended."""
        if self.result is None:
            self.result = reason

    def takes_repeat(self, now: float) -> bool:
        """Whether the same request, arriving once more, can belong to this transfer.

        It can until the client has answered, and shortly after (a copy late on the way). One that comes
        later is from a machine that was restarted and uses its first port again, as boot ROMs do.
        """
        if self.result is not None:
            return False
        return self._heard_at is None or now - self._heard_at < REPEAT_S

    def _note_round_trip(self, seconds: float) -> None:
        """Longer ones count at once, shorter ones little by little."""
        if seconds > self._round_trip:
            self._round_trip = seconds
        else:
            self._round_trip -= (self._round_trip - seconds) / 16

    def _take_repeated(self) -> None:
        """The client has had two copies of a block, so the first was not lost: it takes that long.

        Or so it seems: the network may have made two of one ACK. So no more than the first wait is believed.
        """
        self._round_trip = max(self._round_trip, min(self._doubtful, FIRST_WAIT_S))
        self._doubtful = 0.0

    def _send_window(self, now: float) -> range:
        first = self._acked + 1
        self.retransmissions += max(self._sent - self._acked, 0)
        self._sent = min(self._acked + self._window, self._last) if first else 0  # the OACK goes alone
        self._sent_at = now
        return range(first, self._sent + 1)

    def _stop(self, error: Error) -> None:
        """The client has sent ERROR. Firmware asks for the size by breaking off after the OACK: EDK2 with
        code 8, BIOS ROMs with code 0; then it asks for the file.
        """
        if self._acked < 0 and error.code in (ErrorCode.NOT_DEFINED, ErrorCode.OPTION_NEGOTIATION):
            self.result = "size probe"
        else:
            self.abandon(f"client sent error {error.code} {error.message[:100]!r}")
