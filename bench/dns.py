"""Authoritative answers per second: pxeboot beside dnsmasq, 200 names, dnsperf as the load.

    .venv/bin/python -m bench.dns [--quick]

Run from the checkout as root. Nothing it makes stays behind.
"""

import argparse
import contextlib
import datetime
import re
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from bench.wire import INTERFACE, PREFIX_BITS, SERVER_ADDRESS, Wire, check, cpu_seconds, machine, wire
from pxeboot.cli.client import ask
from pxeboot.errors import PxebootError

NAMES = 200
SECONDS = 4
ROUNDS = 5
DOMAIN = "boot.example"
PACKAGES = {"dnsperf": "dnsperf", "dnsmasq": "dnsmasq-base", "dig": "bind9-dnsutils"}


@dataclass(frozen=True)
class Run:
    """One run of dnsperf: answers per second, share lost, CPU time per answer in µs."""

    rate: float
    lost: float
    cpu_us: float


def host(number: int) -> tuple[str, str]:
    """Name and address of the n-th host."""
    return f"node{number}", f"10.64.9.{number}"


@contextlib.contextmanager
def pxeboot(laid: Wire, files: Path) -> Iterator[int]:
    """Our server with NAMES nodes; the process id."""
    config = files / "pxeboot.toml"
    config.write_text(f"""
[server]
state_dir = "{files}"
[[network]]
interface = "{INTERFACE}"
subnet = "10.64.0.0/{PREFIX_BITS}"
[dns]
domain = "{DOMAIN}"
""")
    command = [sys.executable, "-m", "pxeboot.cli.main", "serve", "-c", str(config)]
    with laid.serving(command, files / "log") as process:
        wait_until_it_answers(laid, f"pxeboot.{DOMAIN}")
        for number in range(NAMES):
            name, address = host(number)
            ask(files, "PATCH", f"/nodes/52:54:00:00:00:{number:02x}", {"name": name, "address": address})
        wait_until_it_answers(laid, f"{host(NAMES - 1)[0]}.{DOMAIN}")
        yield process.pid


@contextlib.contextmanager
def dnsmasq(laid: Wire, files: Path) -> Iterator[int]:
    """dnsmasq with the same names in a hosts file; the process id."""
    lines = [f"{address} {name}.{DOMAIN}" for name, address in map(host, range(NAMES))]
    (files / "hosts").write_text("\n".join(lines) + "\n")
    command = [
        "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--user=root", "--no-resolv",
        "--no-hosts",
        f"--addn-hosts={files / 'hosts'}", f"--pid-file={files / 'pid'}", f"--interface={INTERFACE}",
        f"--local=/{DOMAIN}/", "--log-facility=-",
    ]  # fmt: skip
    with laid.serving(command, files / "log") as process:
        wait_until_it_answers(laid, f"{host(NAMES - 1)[0]}.{DOMAIN}")
        yield process.pid


CONTENDERS = {"pxeboot": pxeboot, "dnsmasq": dnsmasq}


def wait_until_it_answers(laid: Wire, name: str) -> None:
    """Until an address comes back for the name, 20 s at most. Raises PxebootError."""
    for _ in range(100):
        told = laid.load_from(["dig", f"@{SERVER_ADDRESS}", "+short", "+time=1", "+tries=1", name], 5)
        if re.fullmatch(r"[\d.]+\n", told):
            return
        time.sleep(0.2)
    raise PxebootError(f"no answer for {name}", "see what the server logs")


def load(laid: Wire, pid: int, queries: Path) -> Run:
    """One run against whoever serves."""
    before = cpu_seconds(pid)
    printed = laid.load_from(
        ["dnsperf", "-s", SERVER_ADDRESS, "-d", str(queries), "-l", str(SECONDS), "-c", "8", "-q", "200"],
        SECONDS + 20,
    )
    spent = cpu_seconds(pid) - before
    sent, done = (int(_number(printed, f"Queries {word}:")) for word in ("sent", "completed"))
    return Run(_number(printed, "Queries per second:"), 1 - done / sent, spent / done * 1e6)


def _number(printed: str, label: str) -> float:
    found = re.search(rf"{label}\s+([\d.]+)", printed)
    if found is None:
        raise PxebootError(f"dnsperf did not say {label!r}:\n{printed}", "run it by hand to see why")
    return float(found[1])


def measure(laid: Wire, rounds: int) -> dict[str, list[Run]]:
    """Alternating rounds."""
    results: dict[str, list[Run]] = {name: [] for name in CONTENDERS}
    with tempfile.TemporaryDirectory() as folder:
        queries = Path(folder) / "queries"
        queries.write_text("".join(f"{name}.{DOMAIN} A\n" for name, _ in map(host, range(NAMES))))
        for number in range(rounds):
            for name, contender in CONTENDERS.items():
                files = Path(folder) / f"{name}{number}"
                files.mkdir()
                with contender(laid, files) as pid:
                    results[name].append(load(laid, pid, queries))
                run = results[name][-1]
                print(f"{name}: {run.rate:.0f}/s, {run.lost:.2%} lost, {run.cpu_us:.1f} µs", flush=True)
    return results


def report(results: dict[str, list[Run]]) -> str:
    """The result as Markdown."""
    middle = {
        name: Run(*(median(getattr(run, field) for run in runs) for field in ("rate", "lost", "cpu_us")))
        for name, runs in results.items()
    }
    rows = [
        f"| {name} | {run.rate:.0f} | {run.lost:.2%} | {run.cpu_us:.1f} |" for name, run in middle.items()
    ]
    ratio = middle["pxeboot"].rate / middle["dnsmasq"].rate
    return "\n".join(
        [
            f"# DNS, {datetime.datetime.now(datetime.UTC):%Y-%m-%d}",
            "",
            f"{machine()}. Python {sys.version.split()[0]}. {NAMES} names; dnsperf with 8 clients and 200",
            "queries under way; server on one core, dnsperf on another; "
            f"medians of {ROUNDS} alternating runs of {SECONDS} s.",
            "",
            "| server | answers/s | lost | CPU per answer, µs |",
            "|---|---|---|---|",
            *rows,
            "",
            f"pxeboot to dnsmasq: {ratio:.2f}",
            "",
        ]
    )


def main() -> int:
    """Measure, print, and write the result."""
    parser = argparse.ArgumentParser(description="DNS answers per second, beside dnsmasq")
    parser.add_argument("--quick", action="store_true", help="one round, no result file")
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # unwinds, as Ctrl-C does
    try:
        check(PACKAGES)
        with wire("pxeboot-bench-dns") as laid:
            text = report(measure(laid, 1 if asked.quick else ROUNDS))
    except PxebootError as error:
        print(f"error: {error}\nhint: {error.hint}", file=sys.stderr)
        return 1
    print(text)
    if not asked.quick:
        target = Path(__file__).parent / "results" / f"dns-{datetime.datetime.now(datetime.UTC):%Y-%m-%d}.md"
        target.parent.mkdir(exist_ok=True)
        target.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
