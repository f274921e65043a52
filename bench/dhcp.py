#!/usr/bin/env python3
"""DHCP side by side: the highest rate at which fewer than 1 % of exchanges are lost, and what one costs.

Run it as root from the checkout: `.venv/bin/python -m bench.dhcp`; see bench/README.md.
"""

import argparse
import datetime
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median

from bench import perfdhcp
from bench.dhcp_servers import FIRST, PXEBOOT, SERVERS, DhcpServer
from bench.wire import Wire, check, cpu_seconds, machine, wire
from pxeboot.errors import PxebootError

CLIENTS = (250, 2000, 20000)
ROUNDS = 3
SECONDS = 2
"""Of one run of perfdhcp."""
MAX_LOST = 0.01
TRIES = 2
"""Runs at one rate before it counts as too high: other work on the machine may have spoilt one."""
MIN_RATE, MAX_RATE = 25, 64000
STEP, CLOSE = 1.4, 1.1
"""The search goes up or down by `STEP`, then halves, until the lowest failing rate is that close to the
highest passing one."""
FILL_RATE = 400
"""Exchanges per second before measuring."""
TABLES = (1000, 100000)
TABLE_RATE, TABLE_SECONDS = 2500, 5
"""Of the runs that compare table sizes: low enough to lose nothing, high enough for batches to form."""
FILLS = 3
"""Times that a table is filled at most, until hardly a machine is without its lease."""
SOCKET_BYTES = 4 << 20
RESULTS = Path(__file__).parent / "results"


@dataclass
class Score:
    """What one contender reached with so many clients, one entry per round."""

    rates: list[float] = field(default_factory=list)
    """Exchanges completed per second at the highest rate that passed."""
    cpu: list[float] = field(default_factory=list)
    """Microseconds of the server's CPU per exchange, in that run."""


@dataclass(frozen=True)
class Running:
    """A server that answers, and the wire to it."""

    wire: Wire
    pid: int
    clients: int

    def passes(self, rate: int) -> tuple[perfdhcp.Load, float] | None:
        """The first run at this rate that loses less than `MAX_LOST`, as `load` has it."""
        runs = (self.load(rate) for _ in range(TRIES))
        return next((run for run in runs if run[0].lost < MAX_LOST), None)

    def load(self, rate: int, seconds: int = SECONDS) -> tuple[perfdhcp.Load, float]:
        """One run, and the server's CPU per completed exchange in microseconds."""
        before = cpu_seconds(self.pid)
        load = perfdhcp.run(self.wire, rate, self.clients, seconds)
        used = cpu_seconds(self.pid) - before
        time.sleep(0.5)  # what still waits in a buffer is not the next run's
        return load, used / max(load.completed, 1) * 1e6


@contextmanager
def roomy_sockets() -> Iterator[None]:
    """Sockets get `SOCKET_BYTES` of receive buffer unless they ask for less, the load's and all contenders'.

    The kernel's default holds 270 replies, and perfdhcp asks for no more: it would lose what it was sent, and
    the server get the blame.
    """
    default = Path("/proc/sys/net/core/rmem_default")
    before = default.read_text()
    default.write_text(str(SOCKET_BYTES))
    try:
        yield
    finally:
        default.write_text(before)


@contextmanager
def running(laid: Wire, server: DhcpServer, clients: int) -> Iterator[Running]:
    """Start a server with an empty table and room for the clients and half as many again."""
    with tempfile.TemporaryDirectory(prefix="pxeboot-bench-") as files:
        log = Path(files) / "log"
        with laid.serving(server.prepare(Path(files), FIRST + clients * 3 // 2), log) as process:
            started = Running(laid, process.pid, clients)
            _wait_until_it_answers(started, server, process, log)
            yield started


def _wait_until_it_answers(
    started: Running, server: DhcpServer, process: "subprocess.Popen[bytes]", log: Path
) -> None:
    for _ in range(20):
        if process.poll() is not None:
            break
        if perfdhcp.run(started.wire, 10, 1, 1).completed:
            return
    raise PxebootError(f"{server.name} does not answer", f"its log ends: {log.read_text()[-500:]}")


def highest(server: Running, guess: float) -> tuple[float, float]:
    """The highest passing rate and its CPU per exchange; the search begins at `guess`."""
    low, high = 0.0, MAX_RATE * STEP
    best = (0.0, 0.0)
    rate = guess
    while MIN_RATE <= rate <= MAX_RATE and high / max(low, 1) > CLOSE:
        passed = server.passes(int(rate))
        if passed is None:
            high = rate
        else:
            low = rate
            best = max(best, (passed[0].rate, passed[1]))
        if not low:
            rate = high / STEP
        elif high > MAX_RATE:
            rate = low * STEP
        else:
            rate = (low * high) ** 0.5
    return best


def measure_rates(laid: Wire, servers: tuple[DhcpServer, ...], clients: int, rounds: int) -> dict[str, Score]:
    """Rounds in which each contender has its turn, so that what disturbs this machine disturbs all."""
    scores = {server.name: Score() for server in servers}
    for number in range(rounds):
        for server in servers:
            score = scores[server.name]
            with running(laid, server, clients) as started:
                fill(started)
                rate, cpu = highest(started, _guess(server, score))
            score.rates.append(rate)
            score.cpu.append(cpu)
            say(f"{clients} clients, round {number + 1}: {server.name} {rate:.0f}/s, {cpu:.0f} us each")
    return scores


def _guess(server: DhcpServer, score: Score) -> float:
    """Where to look first: at what it reached in an earlier round."""
    return (median(score.rates) if score.rates else 0) or server.guess


def fill(started: Running) -> None:
    """Give clients a lease before it is measured, 2 000 of them at most: machines of a site are known."""
    started.load(FILL_RATE, -(-min(started.clients, 2000) // FILL_RATE))


def measure_growth(laid: Wire, rounds: int) -> dict[int, list[float]]:
    """pxeboot's CPU per exchange, microseconds, with so many leases in the table, for those who have one."""
    costs: dict[int, list[float]] = {size: [] for size in TABLES}
    for _ in range(rounds):
        for size in TABLES:
            with running(laid, PXEBOOT, size) as started:
                for _ in range(FILLS):
                    filled, _ = started.load(TABLE_RATE, max(2, -(-size // TABLE_RATE)))
                    if filled.lost < MAX_LOST:
                        break
                _, cpu = started.load(TABLE_RATE, TABLE_SECONDS)
            costs[size].append(cpu)
            say(f"{size} leases: pxeboot {cpu:.0f} us each")
    return costs


def say(line: str) -> None:
    print(line, flush=True)


def report(rates: dict[int, dict[str, Score]], growth: dict[int, list[float]]) -> str:
    """The result as Markdown."""
    names = list(next(iter(rates.values()))) if rates else []
    versions = ", ".join(f"{item.name} {item.version}" for item in SERVERS)
    lines = [
        f"# DHCP, {datetime.datetime.now(datetime.UTC):%Y-%m-%d}",
        "",
        f"{machine()}. {versions}. Python {sys.version.split()[0]}.",
        f"Server on one core, perfdhcp on another; medians of alternating rounds of {SECONDS} s runs.",
        "A server with CPU to spare at its highest rate (rate times CPU under 1 s) has met perfdhcp's end.",
    ]
    if rates:
        lines += [
            "",
            "## Highest rate with less than 1 % of exchanges lost (exchanges/s; CPU per exchange)",
            "",
            "| clients | " + " | ".join(names) + " | pxeboot to best peer | rounds |",
            "|---|" + "---|" * (len(names) + 2),
        ]
    for clients, scores in sorted(rates.items()):
        cells = [f"{median(item.rates):.0f}; {median(item.cpu):.0f} µs" for item in scores.values()]
        rounds = max(len(item.rates) for item in scores.values())
        lines.append(f"| {clients} | " + " | ".join(cells) + f" | {_ratio(scores)} | {rounds} |")
    if growth:
        small, large = (median(growth[size]) for size in TABLES)
        lines += [
            "",
            f"## pxeboot's CPU per exchange as its table grows ({TABLE_RATE} exchanges/s)",
            "",
            f"{TABLES[0]} leases: {small:.0f} µs. {TABLES[1]} leases: {large:.0f} µs. "
            f"Ratio {large / small:.2f}.",
        ]
    return "\n".join(lines) + "\n"


def _ratio(scores: dict[str, Score]) -> str:
    peers = [median(item.rates) for name, item in scores.items() if name != PXEBOOT.name]
    if not peers or PXEBOOT.name not in scores or not max(peers):
        return "-"
    return f"{median(scores[PXEBOOT.name].rates) / max(peers):.2f}"


class Results:
    """What has been measured today, in one file of figures and one to read; parts may be run one by one."""

    def __init__(self, stem: Path) -> None:
        self._figures, self._text = stem.with_suffix(".json"), stem.with_suffix(".md")
        kept = json.loads(self._figures.read_text()) if self._figures.exists() else {}
        self.rates = {
            int(count): {name: Score(**score) for name, score in scores.items()}
            for count, scores in kept.get("rates", {}).items()
        }
        self.growth = {int(size): costs for size, costs in kept.get("growth", {}).items()}

    def write(self) -> None:
        """Put both files in order."""
        self._figures.parent.mkdir(exist_ok=True)
        rates = {
            count: {name: asdict(score) for name, score in scores.items()}
            for count, scores in self.rates.items()
        }
        self._figures.write_text(json.dumps({"rates": rates, "growth": self.growth}, indent=1) + "\n")
        self._text.write_text(report(self.rates, self.growth))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one round at 2 000 clients, no result file")
    parser.add_argument("--only", metavar="NAME", help="one contender, no result file")
    parser.add_argument("--clients", type=int, choices=CLIENTS, help="this part alone, into the day's result")
    parser.add_argument("--growth", action="store_true", help="this part alone, into the day's result")
    asked = parser.parse_args()
    servers = tuple(item for item in SERVERS if asked.only in (None, item.name))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # unwinds, as Ctrl-C does
    whole = not (asked.quick or asked.clients or asked.growth)
    counts = CLIENTS if whole else (2000,) if asked.quick else (asked.clients,) if asked.clients else ()
    rounds = 1 if asked.quick else ROUNDS
    results = Results(RESULTS / f"dhcp-{datetime.datetime.now(datetime.UTC):%Y-%m-%d}")
    kept = not asked.quick and not asked.only
    if not kept:
        results.rates, results.growth = {}, {}
    try:
        check(perfdhcp.PACKAGES | {item.program: item.package for item in servers})
        with roomy_sockets(), wire() as laid:
            for count in counts:
                results.rates[count] = measure_rates(laid, servers, count, rounds)
            if (whole or asked.growth) and PXEBOOT in servers:
                results.growth = measure_growth(laid, rounds)
    except PxebootError as error:
        print(f"error: {error}\n  hint: {error.hint}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    say(report(results.rates, results.growth))
    if kept:
        results.write()
    return 0


if __name__ == "__main__":
    sys.exit(main())
