"""perfdhcp (Debian's kea-admin) as a function: DISCOVER, OFFER, REQUEST, ACK at a rate, and what got lost."""

import re
from dataclasses import dataclass

from bench.wire import LOAD_ADDRESS, SERVER_ADDRESS, Wire

PACKAGES = {"perfdhcp": "kea-admin", "taskset": "util-linux"}
WAIT_SECONDS = 0.3
"""After the last DISCOVER, for replies under way."""


@dataclass(frozen=True)
class Load:
    """One run: what was begun and what was completed, in four-way exchanges."""

    sent: int
    completed: int
    seconds: float

    @property
    def rate(self) -> float:
        """Exchanges completed per second."""
        return self.completed / self.seconds

    @property
    def lost(self) -> float:
        """The part of the exchanges begun that never got its ACK."""
        return 1 - self.completed / self.sent if self.sent else 1.0


def run(wire: Wire, rate: int, clients: int, seconds: int) -> Load:
    """Begin `rate` exchanges a second for `seconds`, by `clients` machines in turn, as a relay.

    One thread: on one core, its two lose replies from 18 000 exchanges/s on, and one none at 26 000.
    """
    command = [
        "perfdhcp", "-4", "-g", "single", "-l", LOAD_ADDRESS, "-r", str(rate), "-R", str(clients),
        "-p", str(seconds), "-W", str(int(WAIT_SECONDS * 1e6)), SERVER_ADDRESS,
    ]  # fmt: skip
    return parse(wire.load_from(command, seconds + 30), seconds)


def parse(printed: str, seconds: float) -> Load:
    """Read perfdhcp's report. Raises ValueError where it is none."""
    sent = re.search(r"DISCOVER-OFFER\*+\s+sent packets: (\d+)", printed)
    acked = re.search(r"REQUEST-ACK\*+\s+sent packets: \d+\s+received packets: (\d+)", printed)
    if sent is None or acked is None:
        raise ValueError(f"perfdhcp did not report: {printed[-2000:]}")
    return Load(int(sent.group(1)), int(acked.group(1)), seconds)
