"""A storm of root downloads over one link: pxeboot with and without admission control, and nginx.

    .venv/bin/python -m bench.downloads [--scale 10] [--only nginx --keep outcomes.json]

Run from the checkout as root. Nothing it makes stays behind. A whole run takes 17 minutes; `--only` and
`--keep` do it in parts, of which the last writes the result. `--scale 10` is a tenth of image and link: it
takes as long, on a machine that cannot spare a core for a gigabit.
"""

import argparse
import asyncio
import datetime
import json
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlsplit

from bench.http_servers import nginx, pxeboot
from bench.wire import INTERFACE, Wire, check, machine, wire
from pxeboot.errors import PxebootError
from pxeboot.lab import network

NODES = 200
LINK_MBIT, IMAGE_MIB, SHARE_MBIT = 1000, 200, 200
CONTENDERS = ("pxeboot, controlled", "pxeboot, no control", "nginx")
STALL_SECONDS = 15.0
"""A node that gets nothing for so long counts a time-out and resumes, as our initrd does."""
PACKAGES = {"nginx": "nginx-light", "tc": "iproute2"}


@dataclass
class Outcome:
    """When each node had its image, seconds after the first began; time-outs and refusals of all."""

    done: list[float]
    timeouts: int = 0
    refusals: int = 0

    def share(self, part: float) -> float:
        """When so many of the nodes had it."""
        return sorted(self.done)[max(0, round(len(self.done) * part) - 1)]


async def storm(urls: list[str], size: int) -> Outcome:
    """All nodes at once."""
    outcome = Outcome([])
    began = time.monotonic()

    async def node(url: str) -> None:
        have = 0
        while have < size:
            have = await _attempt(url, have, size, outcome)
        outcome.done.append(time.monotonic() - began)

    await asyncio.gather(*map(node, urls))
    return outcome


async def _attempt(url: str, have: int, size: int, outcome: Outcome) -> int:
    """One request for the rest; how much the node has after it."""
    where = urlsplit(url)
    reader, writer = await asyncio.open_connection(where.hostname, where.port or 80)
    try:
        writer.write(f"GET {where.path} HTTP/1.1\r\nHost: x\r\nRange: bytes={have}-\r\n\r\n".encode())
        async with asyncio.timeout(STALL_SECONDS):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
        if " 503 " in head:
            outcome.refusals += 1
            writer.close()
            await asyncio.sleep(int(head.lower().partition("retry-after: ")[2].split()[0]))
            return have
        while have < size:
            async with asyncio.timeout(STALL_SECONDS):
                data = await reader.read(1 << 20)
            if not data:
                break
            have += len(data)
    except TimeoutError:
        outcome.timeouts += 1
    finally:
        writer.close()
    return have


def run(laid: Wire, name: str, scale: int) -> Outcome:
    """One storm against one server, over the shaped link."""
    size = (IMAGE_MIB << 20) // scale
    control = f'link = "{LINK_MBIT / scale:g}Mbit"\nmin_share = "{SHARE_MBIT / scale:g}Mbit"'
    with tempfile.TemporaryDirectory() as folder:
        files = Path(folder)
        serving = {
            "nginx": lambda: nginx(laid, files, size),
            "pxeboot, no control": lambda: pxeboot(laid, files, size),
            "pxeboot, controlled": lambda: pxeboot(laid, files, size, control),
        }[name]
        with serving() as served:
            plan = {"urls": served.images[:NODES], "size": size}
            (files / "plan.json").write_text(json.dumps(plan))
            command = [
                sys.executable,
                "-m",
                "bench.downloads",
                "--load",
                str(files / "plan.json"),
            ]
            printed = laid.load_from(command, 900)
            try:
                return Outcome(**json.loads(printed.splitlines()[-1]))
            except (ValueError, IndexError) as error:
                raise PxebootError(f"{name}: {printed[-500:]}", (files / "log").read_text()[-500:]) from error


def _kept(path: Path | None) -> dict[str, Outcome]:
    """The outcomes of earlier parts."""
    if path is None or not path.exists():
        return {}
    return {name: Outcome(**facts) for name, facts in json.loads(path.read_text()).items()}


def _load(plan: Path) -> None:
    told = json.loads(plan.read_text())
    print(json.dumps(asdict(asyncio.run(storm(told["urls"], told["size"])))))


def _shape(laid: Wire, scale: int) -> None:
    """Let the server's end carry LINK_MBIT, with the queue of a switch port (tc-tbf(8))."""
    rate = f"{LINK_MBIT / scale:g}mbit"
    command = [
        "tc",
        "qdisc",
        "add",
        "dev",
        INTERFACE,
        "root",
        "tbf",
        "rate",
        rate,
        "burst",
        "256kb",
    ]
    shaping = [*command, "latency", "20ms"]
    network.in_namespace(laid.server, lambda: subprocess.run(shaping, check=True))


def report(outcomes: dict[str, Outcome], scale: int) -> str:
    """The result as Markdown."""
    ideal = NODES * (IMAGE_MIB << 20) * 8 / (LINK_MBIT * 1e6)
    rows = [
        f"| {name} | {one.share(0.5):.1f} | {one.share(1):.1f} | {one.timeouts} | {one.refusals} |"
        for name, one in ((name, outcomes[name]) for name in CONTENDERS)
    ]
    return "\n".join(
        [
            f"# {NODES} root downloads at once, {datetime.datetime.now(datetime.UTC):%Y-%m-%d}",
            "",
            f"{machine()}.",
            f"An image of {IMAGE_MIB / scale:g} MiB over a link of {LINK_MBIT / scale:g} Mbit/s (tc-tbf): "
            f"{ideal:.0f} s of payload.",
            f"A node that gets nothing for {STALL_SECONDS:.0f} s counts a time-out and resumes.",
            f"Controlled: {LINK_MBIT // SHARE_MBIT} downloads at a time, by `link` and `min_share`.",
            "",
            "| server | half of the nodes, s | all, s | time-outs | told to wait |",
            "|---|---|---|---|---|",
            *rows,
            "",
        ]
    )


def main() -> int:
    """Measure, print, and write the result."""
    parser = argparse.ArgumentParser(description="200 downloads over one link")
    parser.add_argument("--scale", type=int, default=1, help="divides image and link")
    parser.add_argument("--only", choices=CONTENDERS, help="one of the three")
    parser.add_argument(
        "--keep",
        type=Path,
        help="a file in which outcomes wait for those still missing",
    )
    parser.add_argument("--load", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.load:
        _load(asked.load)
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # unwinds, as Ctrl-C does
    outcomes = _kept(asked.keep)
    wanted = [asked.only] if asked.only else [name for name in CONTENDERS if name not in outcomes]
    try:
        check(PACKAGES)
        with wire(f"pxeboot-downloads{CONTENDERS.index(wanted[0]) if wanted else ''}") as laid:
            _shape(laid, asked.scale)
            for name in wanted:
                outcomes[name] = run(laid, name, asked.scale)
                print(name, outcomes[name].share(0.5), outcomes[name].share(1), flush=True)
    except PxebootError as error:
        print(f"error: {error}\nhint: {error.hint}", file=sys.stderr)
        return 1
    if asked.keep:
        asked.keep.write_text(json.dumps({name: asdict(one) for name, one in outcomes.items()}))
    if not all(name in outcomes for name in CONTENDERS):
        return 0
    text = report(outcomes, asked.scale)
    print(text)
    name = f"downloads-{datetime.datetime.now(datetime.UTC):%Y-%m-%d}.md"
    (Path(__file__).parent / "results" / name).write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
