#!/usr/bin/env python3
"""DHCP side by side: the highest rate at which fewer than 1 % of exchanges are lost, and what one costs.

Run it as root from the checkout: `.venv/bin/python -m bench.dhcp`; see bench/README.md.
"""

import argparse
import datetime
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from bench import perfdhcp
from bench.dhcp_servers import FIRST, PXEBOOT, SERVERS, DhcpServer
from bench.wire import Wire, check, cpu_seconds, machine, wire
from pxeboot.errors import PxebootError

CLIENTS = (250, 2000, 20000)
ROUNDS = 3
SECONDS = 4
"""Of one run of perfdhcp."""
MAX_LOST = 0.01
START_RATE, MAX_RATE = 500, 64000
CLOSE = 1.06
"""The search ends when the lowest failing rate is that close to the highest passing one."""
FILL_RATE = 200
"""Exchanges per second before measuring, which every contender sustains."""
TABLES = (1000, 100000)
TABLE_RATE = 2500
"""Of the runs that compare table sizes: low enough to lose nothing, high enough for batches to form."""
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

    def load(self, rate: int, seconds: int = SECONDS) -> tuple[perfdhcp.Load, float]:
        """One run, and the server's CPU per completed exchange in microseconds."""
        before = cpu_seconds(self.pid)
        load = perfdhcp.run(self.wire, rate, self.clients, seconds)
        used = cpu_seconds(self.pid) - before
        time.sleep(0.5)  # what still waits in a buffer is not the next run's
        return load, used / max(load.completed, 1) * 1e6


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


def highest(server: Running, guess: float | None) -> tuple[float, float]:
    """The highest passing rate and its CPU per exchange. `guess`: from an earlier round, to begin near it."""
    low, high = 0.0, None
    best = (0.0, 0.0)
    rate = START_RATE if guess is None else max(guess / CLOSE, 50)
    while rate < MAX_RATE and rate >= 25:
        load, cpu = server.load(int(rate))
        if load.lost < MAX_LOST:
            low = rate
            best = max(best, (load.rate, cpu))
        else:
            high = rate
        if high is None:
            rate = rate * (2 if guess is None else 1.25)
        elif high / max(low, 1) <= CLOSE:
            break
        else:
            rate = (low * high) ** 0.5 if low else high / (2 if guess is None else 1.25)
    return best


def measure_rates(laid: Wire, servers: tuple[DhcpServer, ...], clients: int, rounds: int) -> dict[str, Score]:
    """Rounds in which each contender has its turn, so that what disturbs this machine disturbs all."""
    scores = {server.name: Score() for server in servers}
    for number in range(rounds):
        for server in servers:
            score = scores[server.name]
            with running(laid, server, clients) as started:
                fill(started)
                rate, cpu = highest(started, median(score.rates) if score.rates else None)
            score.rates.append(rate)
            score.cpu.append(cpu)
            say(f"{clients} clients, round {number + 1}: {server.name} {rate:.0f}/s, {cpu:.0f} us each")
    return scores


def fill(started: Running) -> None:
    """Give clients a lease before it is measured, 2 000 of them at most: machines of a site are known."""
    started.load(FILL_RATE, -(-min(started.clients, 2000) // FILL_RATE))


def measure_growth(laid: Wire, rounds: int) -> dict[int, list[float]]:
    """pxeboot's CPU per exchange, microseconds, with so many leases in the table and all of them in use."""
    costs: dict[int, list[float]] = {size: [] for size in TABLES}
    for _ in range(rounds):
        for size in TABLES:
            with running(laid, PXEBOOT, size) as started:
                started.load(TABLE_RATE, max(2, -(-size // TABLE_RATE)))
                _, cpu = started.load(TABLE_RATE)
            costs[size].append(cpu)
            say(f"{size} leases: pxeboot {cpu:.0f} us each")
    return costs


def say(line: str) -> None:
    print(line, flush=True)


def report(rates: dict[int, dict[str, Score]], growth: dict[int, list[float]], rounds: int) -> str:
    """The result as Markdown."""
    names = list(next(iter(rates.values())))
    versions = ", ".join(f"{item.name} {item.version}" for item in SERVERS if item.name in names)
    lines = [
        f"# DHCP, {datetime.datetime.now(datetime.UTC):%Y-%m-%d}",
        "",
        f"{machine()}. {versions}. Python {sys.version.split()[0]}.",
        "Server on one core, perfdhcp on another; "
        f"medians of {rounds} alternating rounds of {SECONDS} s runs.",
        "",
        "## Highest rate with less than 1 % of exchanges lost (exchanges/s; CPU per exchange)",
        "",
        "| clients | " + " | ".join(names) + " | pxeboot to best peer |",
        "|---|" + "---|" * (len(names) + 1),
    ]
    for clients, scores in rates.items():
        cells = [f"{median(item.rates):.0f}; {median(item.cpu):.0f} µs" for item in scores.values()]
        lines.append(f"| {clients} | " + " | ".join(cells) + f" | {_ratio(scores)} |")
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


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one round at 2 000 clients, no result file")
    parser.add_argument("--only", metavar="NAME", help="one contender, no result file")
    asked = parser.parse_args()
    servers = tuple(item for item in SERVERS if asked.only in (None, item.name))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # unwinds, as Ctrl-C does
    try:
        check(perfdhcp.PACKAGES | {item.program: item.package for item in servers})
        with wire() as laid:
            rounds = 1 if asked.quick else ROUNDS
            clients = (2000,) if asked.quick else CLIENTS
            rates = {count: measure_rates(laid, servers, count, rounds) for count in clients}
            growth = measure_growth(laid, rounds) if PXEBOOT in servers else {}
    except PxebootError as error:
        print(f"error: {error}\n  hint: {error.hint}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    text = report(rates, growth, rounds)
    say(text)
    if not asked.quick and not asked.only:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"dhcp-{datetime.datetime.now(datetime.UTC):%Y-%m-%d}.md").write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
