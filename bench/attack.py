"""A healthy node's boot while slowhttptest attacks the server in its four modes, and without the attack.

    .venv/bin/python -m bench.attack [--quick]

Run from the checkout as root. Nothing it makes stays behind.
"""

import argparse
import contextlib
import datetime
import json
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from statistics import median, quantiles
from urllib.parse import urlsplit

from bench.http_servers import Serving, pxeboot
from bench.wire import LOAD_CORE, Wire, check, cpu_seconds, machine, wire
from pxeboot.errors import PxebootError
from pxeboot.lab import network

IMAGE_BYTES = 42 << 20
CONNECTIONS = 1000
MODES = {
    "headers that trickle (slowloris)": ("-H", "-i", "1", "-r", "1000"),
    "bodies that trickle": ("-B", "-i", "1", "-s", "8192", "-r", "1000"),
    "thousands of ranges": ("-R", "-a", "1", "-b", "3000", "-r", "100"),  # each is refused and ends
    "answers read slowly": ("-X", "-w", "1", "-y", "10", "-n", "1", "-z", "5", "-k", "3", "-r", "1000"),
}
BOOTS, ROUNDS = 20, 4
FIGURES = ("peace", "war", "CPU")
PACKAGES = {"slowhttptest": "slowhttptest", "curl": "curl"}

Results = dict[tuple[str, str], list[float]]
"""Figures by mode and what they are: milliseconds of each boot in "peace" and in "war", and the server's
"CPU" share for the attack alone."""


def boot(script_url: str) -> float:
    """Script, kernel, initrd and root, each over a connection of its own; how many milliseconds it took."""
    began = time.perf_counter()
    found = re.search(r"pxeboot.url=(\S+)", _get(script_url).decode())
    assert found is not None
    sizes = [len(_get(f"{found[1]}/{name}")) for name in ("kernel", "initrd", "root")]
    assert sizes[-1] == IMAGE_BYTES
    return (time.perf_counter() - began) * 1000


def _get(url: str) -> bytes:
    where = urlsplit(url)
    connection = HTTPConnection(where.netloc, timeout=10)
    with contextlib.closing(connection):
        connection.request("GET", where.path)
        answer = connection.getresponse()
        if answer.status != 200:
            raise PxebootError(f"{url}: {answer.status}", "a healthy node must not be refused")
        return answer.read()


def boots(laid: Wire, serving: Serving, count: int) -> list[float]:
    """Boots of one machine in a row, from the other side of the wire."""
    command = [sys.executable, "-m", "bench.attack", "--boot", serving.script % 1, "--count", str(count)]
    printed = laid.load_from(command, 120)
    try:
        return [float(item) for item in json.loads(printed.splitlines()[-1])]
    except (ValueError, IndexError) as error:
        raise PxebootError(
            f"a healthy node could not boot:\n{printed[-500:]}", "see the server's log"
        ) from error


@contextlib.contextmanager
def attack(laid: Wire, serving: Serving, mode: str) -> Iterator[None]:
    """slowhttptest with its connections, until the end of the block."""
    url = serving.images[2]
    target = url.replace("/root", "/event") if MODES[mode][0] == "-B" else url
    how = (*MODES[mode], "-c", str(CONNECTIONS), "-l", "60", "-p", "1", "-u", target)
    # It polls without a pause: at any other priority it would take half of the node's core.
    command = ["nice", "-n", "19", "taskset", "--cpu-list", str(LOAD_CORE), "slowhttptest", *how]
    attacker = network.in_namespace(
        laid.load,
        lambda: subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL),
    )
    try:
        time.sleep(4)  # until it has them
        yield
    finally:
        attacker.kill()
        attacker.wait()


def measure(laid: Wire, rounds: int, count: int) -> Results:
    """Each mode in alternation with peace."""
    results: Results = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder, pxeboot(laid, Path(folder), IMAGE_BYTES) as serving:
        for _ in range(rounds):
            for mode in MODES:
                time.sleep(1)  # connections of the last attack are gone
                results[mode, "peace"] += boots(laid, serving, count)
                with attack(laid, serving, mode):
                    before = cpu_seconds(serving.pid)
                    time.sleep(1)
                    results[mode, "CPU"].append(cpu_seconds(serving.pid) - before)
                    results[mode, "war"] += boots(laid, serving, count)
                print(mode, *(f"{what} {median(results[mode, what]):.2f}" for what in FIGURES), flush=True)
    return results


def report(results: Results, rounds: int, count: int) -> str:
    """The result as Markdown."""
    rows = []
    for mode in MODES:
        peace, war, cpu = (results[mode, what] for what in FIGURES)
        last = [quantiles(figures, n=20)[-1] for figures in (peace, war)]
        shown = " | ".join(f"{figure:.0f}" for figure in (median(peace), median(war), *last))
        rows.append(f"| {mode} | {shown} | {median(war) / median(peace):.2f} | {median(cpu):.0%} |")
    return "\n".join(
        [
            f"# A boot under attack, {datetime.datetime.now(datetime.UTC):%Y-%m-%d}",
            "",
            f"{machine()}. Python {sys.version.split()[0]}.",
            f"slowhttptest with {CONNECTIONS} connections; the limit of connections per address is lifted, "
            "so that it gets them.",
            f"A healthy node asks for script, kernel, initrd and an image of {IMAGE_BYTES >> 20} MiB,",
            f"{rounds} times {count} boots with and without the attack in alternation; server on one core,",
            "node and attacker on another, where the attacker has the lowest priority, as it never sleeps.",
            "Times are milliseconds for a boot; CPU is the server's, of its core, for the attack alone.",
            "",
            "| attack | without, median | with | without, 95 % | with | with to without | CPU |",
            "|---|---|---|---|---|---|---|",
            *rows,
            "",
        ]
    )


def main() -> int:
    """Measure, print, and write the result."""
    parser = argparse.ArgumentParser(description="boots under attack by slowhttptest")
    parser.add_argument("--quick", action="store_true", help="one round, no result file")
    parser.add_argument("--boot", help=argparse.SUPPRESS)
    parser.add_argument("--count", type=int, default=1, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.boot:
        print(json.dumps([boot(asked.boot) for _ in range(asked.count)]))
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # unwinds, as Ctrl-C does
    rounds = 1 if asked.quick else ROUNDS
    try:
        check(PACKAGES)
        with wire("pxeboot-attack") as laid:
            text = report(measure(laid, rounds, BOOTS), rounds, BOOTS)
    except PxebootError as error:
        print(f"error: {error}\nhint: {error.hint}", file=sys.stderr)
        return 1
    print(text)
    if not asked.quick:
        name = f"attack-{datetime.datetime.now(datetime.UTC):%Y-%m-%d}.md"
        (Path(__file__).parent / "results" / name).write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
