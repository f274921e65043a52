"""TFTP: pxeboot beside dnsmasq, tftpd-hpa and atftpd, in one run, alternating, one core each.

    python -m bench.tftp [--quick] [--loss] [--write FILE] [--window 1,16 …]

Two network namespaces joined by a veth pair; the load is `tftp_load.c`, compiled at the start, which compares
every block. atftpd and tftpd-hpa conflict as Debian packages: whichever is not installed is fetched and
unpacked into a temporary folder. A peer that does not know windows is left out there. The options choose
rows, so that the whole can be run in parts.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from bench.wire import SERVER_ADDRESS, Wire, check, machine, wire
from pxeboot.lab import network

ROUNDS = 3
CLIENTS = (1, 16, 64, 256)
BLOCK_SIZES = (512, 1428)
WINDOWS = (1, 16, 64)
LOCK_STEP_MEGABYTES, WINDOW_MEGABYTES = 64, 128
"""What all clients of a row read together; a single one a quarter of it."""
LOSS_MEGABYTES = 0.25
"""What each client reads where packets are lost."""
SECONDS = 300.0
_PACKAGES = {"in.tftpd": "tftpd-hpa", "atftpd": "atftpd"}
_FIRST = ("chrt", "--fifo", "10")
"""Both ends go before everything else on their cores: what else this machine does is not measured."""


@dataclass(frozen=True)
class Server:
    """One of the servers compared: how it is started, and whether it knows RFC 7440."""

    name: str
    command: Callable[[Path], list[str]]
    windows: bool


@dataclass(frozen=True)
class Case:
    """One row: how many read at once, and how."""

    clients: int
    block_size: int
    window: int
    loss: int = 0
    """Of 100 packets, each way."""

    @property
    def size(self) -> int:
        """Bytes each client reads."""
        together = LOCK_STEP_MEGABYTES if self.window == 1 else WINDOW_MEGABYTES
        return int((LOSS_MEGABYTES if self.loss else together / max(self.clients, 4)) * 2**20)


@dataclass(frozen=True)
class Result:
    """What one run of one server came to."""

    megabytes_per_second: float
    cpu_milliseconds_per_megabyte: float
    slowest_to_median: float
    failed: int


def servers(programs: Path) -> list[Server]:
    """pxeboot first. `programs` has what could not be installed beside the others."""
    here = SERVER_ADDRESS
    return [
        Server("pxeboot", lambda root: [sys.executable, "-m", "bench.tftp_server", here, str(root)], True),
        Server(
            "dnsmasq",
            lambda root: ["dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--port=0",
                          "--enable-tftp", f"--tftp-root={root}", "--tftp-max=1000", "--user=root",
                          "--log-facility=/dev/null"],
            False,
        ),
        Server(
            "tftpd-hpa",
            lambda root: [_program("in.tftpd", programs), "--foreground", "--address", f"{here}:69",
                          "--user", "root", "--secure", str(root)],
            False,
        ),
        Server(
            "atftpd",
            lambda root: [_program("atftpd", programs), "--daemon", "--no-fork", "--bind-address", here,
                          "--maxthread", "1000", "--no-multicast", "--user", "root.root", "--logfile",
                          "/dev/null", "--verbose=0", str(root)],
            True,
        ),
    ]  # fmt: skip


def _program(name: str, programs: Path) -> str:
    return shutil.which(name) or str(programs / _PACKAGES[name] / "usr/sbin" / name)


def fetch_missing(programs: Path) -> None:
    """Unpack what is not installed, each apart: atftpd's package has an in.tftpd of its own."""
    for name, package in _PACKAGES.items():
        if not Path(_program(name, programs)).exists():
            subprocess.run(
                ["apt-get", "download", "-q", package], cwd=programs, check=True, capture_output=True
            )
            (archive,) = programs.glob(f"{package}_*.deb")
            subprocess.run(["dpkg", "-x", str(archive), str(programs / package)], check=True)


def compile_load(programs: Path) -> None:
    """The load is a C program, so that it is the servers that are at their limits."""
    source = Path(__file__).with_name("tftp_load.c")
    subprocess.run(["gcc", "-O2", "-o", str(programs / "tftp_load"), str(source)], check=True)


def _wanted(case: Case, told: argparse.Namespace) -> bool:
    return all(
        not getattr(told, name) or str(getattr(case, name)) in getattr(told, name).split(",")
        for name in ("clients", "block_size", "window")
    )


def cases(quick: bool, loss: bool) -> list[Case]:
    """Every row, lock step first."""
    if loss:
        return [Case(clients, 1428, window, 1) for window in (1, 16) for clients in (1, 16)]
    clients = (1, 64) if quick else CLIENTS
    sizes = (1428,) if quick else BLOCK_SIZES
    return [Case(count, size, window) for window in WINDOWS for size in sizes for count in clients]


def measure(laid: Wire, server: Server, case: Case, root: Path, programs: Path) -> Result | None:
    """One run; None where the server does not do windows."""
    log = root.parent / f"{server.name}.log"
    with laid.serving([*_FIRST, *server.command(root)], log) as process:
        wait_until_served(laid, log)
        before = _cpu_seconds(process.pid)
        file, numbers = root / f"file{case.size}", (case.clients, case.block_size, case.window)
        load = [str(programs / "tftp_load"), SERVER_ADDRESS, str(file), file.name, *map(str, numbers)]
        told = laid.load_from([*_FIRST, *load], SECONDS)
        time.sleep(0.2)  # children that have ended are waited for by their parent
        used = _cpu_seconds(process.pid) - before
    outcome = json.loads(told)
    if outcome["windowsize"] != case.window:
        return None
    megabytes = case.size * case.clients / 2**20
    return Result(
        megabytes / outcome["seconds"],
        used * 1000 / megabytes,
        max(outcome["ended"]) / statistics.median(outcome["ended"]),
        outcome["failed"],
    )


def wait_until_served(laid: Wire, log: Path) -> None:
    """Until something listens on port 69 in the server's namespace."""
    deadline = time.monotonic() + 10
    while True:
        table = network.in_namespace(laid.server, lambda: Path("/proc/thread-self/net/udp").read_text())
        if any(line.split()[1].endswith(":0045") for line in table.splitlines()[1:]):
            return
        if time.monotonic() > deadline:
            raise TimeoutError(f"nothing listens on port 69 after 10 s: {log.read_text()}")
        time.sleep(0.05)


def _cpu_seconds(pid: int) -> float:
    """CPU time of a process, its children under way and those waited for."""
    total = 0
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has ended
        if path.parent.name == str(pid):
            total += sum(int(field) for field in fields[11:15])
        elif fields[1] == str(pid):
            total += int(fields[11]) + int(fields[12])
    return total / os.sysconf("SC_CLK_TCK")


@contextmanager
def losing(laid: Wire, percent: int) -> Iterator[None]:
    """Packets are lost at both ends by chance. They cross one by one: a lost window would be one packet."""
    if not percent:
        yield
        return
    rules = (
        "table inet loss { chain input { type filter hook input priority 0; "
        f"meta l4proto udp numgen random mod 100 < {percent} drop; }}; }}"
    )
    for name in (laid.server, laid.load):
        _in(name, ["ethtool", "-K", "bench0", "tx-udp-segmentation", "off", "gro", "off"])
        _in(name, ["nft", rules])
    yield
    for name in (laid.server, laid.load):
        _in(name, ["nft", "delete", "table", "inet", "loss"])


def _in(namespace: str, command: list[str]) -> None:
    network.in_namespace(namespace, lambda: subprocess.run(command, check=True, capture_output=True))


def compare(
    laid: Wire, case: Case, rivals: list[Server], root: Path, programs: Path, rounds: int
) -> dict[str, Result]:
    """Medians of each server, the servers taking turns."""
    runs: dict[str, list[Result]] = {}
    with losing(laid, case.loss):
        for _ in range(rounds):
            for server in rivals:
                if case.window > 1 and not server.windows:
                    continue
                result = measure(laid, server, case, root, programs)
                if result is not None:
                    runs.setdefault(server.name, []).append(result)
    return {name: _median(results) for name, results in runs.items()}


def _median(results: list[Result]) -> Result:
    return Result(
        statistics.median(item.megabytes_per_second for item in results),
        statistics.median(item.cpu_milliseconds_per_megabyte for item in results),
        statistics.median(item.slowest_to_median for item in results),
        sum(item.failed for item in results),
    )


def row(case: Case, results: dict[str, Result], names: list[str]) -> str:
    """A line of the table: MB/s, CPU ms per MB, slowest to median, failures if any."""
    cells = []
    for name in names:
        result = results.get(name)
        if result is None:
            cells.append("-")
            continue
        failed = f", {result.failed} failed" if result.failed else ""
        cells.append(
            f"{result.megabytes_per_second:.1f} ({result.cpu_milliseconds_per_megabyte:.1f} ms, "
            f"{result.slowest_to_median:.2f}{failed})"
        )
    best = max((item.megabytes_per_second for name, item in results.items() if name != "pxeboot"), default=0)
    ratio = results["pxeboot"].megabytes_per_second / best if best else 0.0
    facts = [str(case.clients), str(case.block_size), str(case.window), f"{case.loss} %"]
    return "| " + " | ".join([*facts, *cells, f"{ratio:.2f}"]) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer rows, one round")
    parser.add_argument("--loss", action="store_true", help="1 %% loss each way instead of none")
    parser.add_argument("--only", help="servers to run, by name, separated by commas")
    parser.add_argument("--programs", type=Path, help="folder for fetched daemons, kept")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="runs of each server for a row")
    for name in ("clients", "block_size", "window"):
        parser.add_argument(f"--{name.replace('_', '-')}", help="only rows with these, separated by commas")
    parser.add_argument("--write", type=Path, help="append the table to this file")
    told = parser.parse_args()
    programs = {"dnsmasq": "dnsmasq-base", "nft": "nftables", "ethtool": "ethtool", "chrt": "util-linux"}
    check(programs | {"gcc": "gcc"})
    lines = [f"{date.today()}, {machine()}. MB/s (server's CPU per MB, slowest client / median client)."]
    with tempfile.TemporaryDirectory() as folder, wire("pxeboot-bench-tftp") as laid:
        programs, root = told.programs or Path(folder) / "programs", Path(folder) / "root"
        for path in (programs, root):
            path.mkdir(exist_ok=True)
        Path(folder).chmod(0o755)
        fetch_missing(programs)
        compile_load(programs)
        rivals = [item for item in servers(programs) if not told.only or item.name in told.only.split(",")]
        names = [item.name for item in rivals]
        lines += [
            "",
            "| " + " | ".join(["clients", "blksize", "windowsize", "loss", *names, "to best"]) + " |",
        ]
        lines += ["|" + "---|" * (5 + len(names))]
        print("\n".join(lines), flush=True)
        for case in cases(told.quick, told.loss):
            if not _wanted(case, told):
                continue
            file = root / f"file{case.size}"
            if not file.exists():
                file.write_bytes(os.urandom(case.size))
                file.chmod(0o644)
            results = compare(laid, case, rivals, root, programs, told.rounds)
            lines.append(row(case, results, names))
            print(lines[-1], flush=True)
    if told.write:
        with told.write.open("a") as file:
            file.write("\n".join(lines) + "\n\n")


if __name__ == "__main__":
    main()
