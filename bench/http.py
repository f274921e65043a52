"""Image bytes and boot scripts per second: pxeboot beside nginx with sendfile, wrk as the load.

    .venv/bin/python -m bench.http [--quick]

Run from the checkout as root. Nothing it makes stays behind.
"""

import argparse
import datetime
import re
import signal
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from bench.http_servers import Contender, Serving, nginx, pxeboot
from bench.wire import Wire, check, cpu_seconds, machine, wire
from pxeboot.errors import PxebootError

IMAGE_BYTES = 42 << 20
RUNS = {1: (4, 1), 32: (2, 2), 256: (1, 4)}
"""By connections: how many runs in a round, and of how many seconds. A connection is fast or slow for all of
its life, as its windows have grown, so that one alone says little."""
SCRIPT_SECONDS = 4
ROUNDS = 3
PACKAGES = {"wrk": "wrk", "nginx": "nginx-light", "curl": "curl"}
CONTENDERS: dict[str, Contender] = {"pxeboot": pxeboot, "nginx": nginx}
SCRIPTS = """
local number = 0
request = function()
    number = (number + 1) % 256
    return wrk.format("GET", string.format("PATH", number))
end
"""
_UNITS = {"B": 1, "KB": 1 << 10, "MB": 1 << 20, "GB": 1 << 30}

Results = dict[tuple[str, str], list[float]]
"""By what was measured and whom: one figure for each round."""


def bytes_per_second(laid: Wire, serving: Serving, connections: int, seconds: int) -> float:
    """How fast the image comes over so many connections."""
    printed = _wrk(laid, seconds, ["-c", str(connections), serving.images[0]])
    found = re.search(r"Transfer/sec:\s+([\d.]+)([KMG]?B)", printed)
    if found is None:
        raise PxebootError(f"wrk said no rate:\n{printed}", "run it by hand to see why")
    return float(found[1]) * _UNITS[found[2]]


def scripts_per_second(laid: Wire, serving: Serving, files: Path) -> float:
    """How many boot scripts come, of 256 machines in turn."""
    host, path = re.fullmatch(r"(http://[^/]+)(/.*)", serving.script).groups()  # type: ignore[union-attr]
    (files / "scripts.lua").write_text(SCRIPTS.replace("PATH", path))
    printed = _wrk(laid, SCRIPT_SECONDS, ["-c", "32", "-s", str(files / "scripts.lua"), f"{host}/"])
    found = re.search(r"Requests/sec:\s+([\d.]+)", printed)
    if found is None or "Non-2xx" in printed:
        raise PxebootError(f"wrk got no scripts:\n{printed}", "run it by hand to see why")
    return float(found[1])


def _wrk(laid: Wire, seconds: int, arguments: list[str]) -> str:
    """What wrk says. What it calls a time-out is an answer that took two seconds, as with 256 at once."""
    printed = laid.load_from(["wrk", "-t", "1", "-d", f"{seconds}s", *arguments], seconds + 30)
    if "Socket errors" in printed and "connect 0, read 0, write 0" not in printed:
        raise PxebootError(f"connections broke:\n{printed}", "run it by hand to see why")
    return printed


def measure(laid: Wire, rounds: int) -> Results:
    """Alternating rounds."""
    results: Results = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        for number in range(rounds):
            for name, contender in CONTENDERS.items():
                files = Path(folder) / f"{name}{number}"
                files.mkdir()
                with contender(laid, files, IMAGE_BYTES) as serving:
                    for what, figure in _round(laid, serving, files):
                        results[what, name].append(figure)
                        print(f"{name}: {what}: {figure:.2f}", flush=True)
    return results


def _round(laid: Wire, serving: Serving, files: Path) -> Iterator[tuple[str, float]]:
    """Everything once, of one server: what was measured, and the figure."""
    for connections, (runs, seconds) in RUNS.items():
        for _ in range(runs):
            before = cpu_seconds(serving.pid)
            rate = bytes_per_second(laid, serving, connections, seconds) / 1e9
            spent = cpu_seconds(serving.pid) - before
            yield f"GB/s, {connections} connections", rate
            yield f"GB per CPU second, {connections} connections", rate * seconds / spent
    yield "boot scripts/s", scripts_per_second(laid, serving, files)


def report(results: Results, rounds: int) -> str:
    """The result as Markdown."""
    rows = []
    for what in dict.fromkeys(what for what, _ in results):
        ours, theirs = (median(results[what, name]) for name in ("pxeboot", "nginx"))
        shown = (f"{number:.2f}" if ours < 1000 else f"{number:.0f}" for number in (ours, theirs))
        rows.append(f"| {what} | {' | '.join(shown)} | {ours / theirs:.2f} |")
    return "\n".join(
        [
            f"# HTTP, {datetime.datetime.now(datetime.UTC):%Y-%m-%d}",
            "",
            f"{machine()}. Python {sys.version.split()[0]}.",
            f"An image of {IMAGE_BYTES >> 20} MiB. Each server is one process on one core;",
            f"wrk has one thread on another. Medians of {rounds} alternating rounds: "
            + "; ".join(f"{runs} x {seconds} s with {number}" for number, (runs, seconds) in RUNS.items())
            + f"\nconnections; {SCRIPT_SECONDS} s of scripts.",
            "A boot script of ours is made when asked for, the first of a boot after its record is on disk;",
            "one of nginx's is a file of the same size.",
            "",
            "| what | pxeboot | nginx | ratio |",
            "|---|---|---|---|",
            *rows,
            "",
        ]
    )


def main() -> int:
    """Measure, print, and write the result."""
    parser = argparse.ArgumentParser(description="HTTP throughput, beside nginx")
    parser.add_argument("--quick", action="store_true", help="one round, no result file")
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # unwinds, as Ctrl-C does
    rounds = 1 if asked.quick else ROUNDS
    try:
        check(PACKAGES)
        with wire("pxeboot-http") as laid:
            text = report(measure(laid, rounds), rounds)
    except PxebootError as error:
        print(f"error: {error}\nhint: {error.hint}", file=sys.stderr)
        return 1
    print(text)
    if not asked.quick:
        target = Path(__file__).parent / "results" / f"http-{datetime.datetime.now(datetime.UTC):%Y-%m-%d}.md"
        target.parent.mkdir(exist_ok=True)
        target.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
