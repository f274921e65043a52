"""The kernel's table with a thousand real servers: pxeboot beside `ipvsadm --restore` and keepalived.

    .venv/bin/python -m bench.balancer [--servers 1000] [--rounds 5]

Run from the checkout as root. Where this kernel has no IPVS, all of them run in a guest of User Mode Linux,
whose system calls are several times as slow as a real kernel's: compare the columns, not with other machines.
"""

import argparse
import asyncio
import contextlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address
from pathlib import Path

from pyroute2 import IPRoute

from bench.wire import machine
from pxeboot.balancer import ipvs
from pxeboot.balancer.loop import Balancer
from pxeboot.config import parse
from pxeboot.errors import PxebootError
from pxeboot.events import Bus
from pxeboot.inventory.boot import Boot, Stage
from pxeboot.inventory.node import Node
from pxeboot.inventory.progress import Progress
from pxeboot.inventory.store import Store, open_store
from pxeboot.lab import uml
from pxeboot.mac import Mac
from pxeboot.site import Network, Site

VIP = "10.64.0.10"
SECONDS = 300
PACKAGES = {"ipvsadm": "ipvsadm", "keepalived": "keepalived"}
SITE = f"""
[[network]]
interface = "own0"
subnet = "10.64.0.0/16"
[[group]]
name = "web"
image = "web"
match = ["52:54:00:*"]
[[service]]
name = "www"
vip = "{VIP}"
port = 80
protocol = "sctp"
group = "web"
"""  # SCTP, as it has no check by default: what is measured is the table, not a thousand machines


def address(number: int) -> IPv4Address:
    return IPv4Address("10.64.1.0") + number


def mac(number: int) -> Mac:
    return Mac.from_bytes(b"\x52\x54\x00" + number.to_bytes(3, "big"))


class Bench:
    """Our balancer over a store with so many nodes that are ready."""

    def __init__(self, store: Store, servers: int) -> None:
        self.store, self.servers = store, servers
        self.bus = Bus()
        self.progress = Progress(store, self.bus)
        config = parse(SITE)
        site = Site(config, (Network(config.network[0], IPv4Address("10.64.0.1")),))
        self.balancer = Balancer(site, store, self.progress, self.bus)
        self.applied: asyncio.Queue[float] = asyncio.Queue()

    async def fill(self) -> None:
        await asyncio.gather(*(self._add(number, Stage.READY) for number in range(self.servers)))

    async def _add(self, number: int, stage: Stage) -> None:
        await self.store.save_node(Node(mac(number), f"web{number}", first_seen=1.0))
        now = time.time()
        reached = {Stage.DISCOVER: now, stage: now}
        await self.store.save_boot(Boot(str(number), mac(number), stage, now, reached, now, address(number)))

    def watch(self) -> None:
        """Note when the kernel has a change, in whatever thread it is made."""
        kernel, loop = self.balancer._the_kernel(), asyncio.get_running_loop()
        apply = kernel.apply

        def timed(changes):  # type: ignore[no-untyped-def]
            refused = apply(changes)
            loop.call_soon_threadsafe(self.applied.put_nowait, time.perf_counter())
            return refused

        kernel.apply = timed  # type: ignore[method-assign]

    async def event(self, number: int) -> float:
        """Seconds from a node's `ready`, as its report is taken, to the kernel's having it."""
        await self._add(number, Stage.ROOT)
        await asyncio.sleep(1.2)
        boot = await self.store.boot(mac(number))
        assert boot is not None
        while not self.applied.empty():
            self.applied.get_nowait()
        begun = time.perf_counter()
        await self.progress.report(boot, Stage.READY, "", 0, 0)
        return await self.applied.get() - begun


async def ours(servers: int, rounds: int) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {"table": [], "round": [], "CPU of a round": [], "event": []}
    for _ in range(rounds):
        await asyncio.to_thread(_run, ["ipvsadm", "-C"])
        with tempfile.TemporaryDirectory(dir="/run") as folder:
            store = open_store(Path(folder))
            bench = Bench(store, servers)
            await bench.fill()
            begun = time.perf_counter()
            await bench.balancer.start()
            found["table"].append(time.perf_counter() - begun)
            count = len(next(iter((await bench.balancer.table()).values())).reals)
            assert count == servers, count
            await asyncio.sleep(1.5)  # until the nodes' stages are on disk
            bench.watch()
            cpu, begun = time.process_time(), time.perf_counter()
            await bench.balancer.round()
            found["round"].append(time.perf_counter() - begun)
            found["CPU of a round"].append(time.process_time() - cpu)
            found["event"].append(await bench.event(servers))
            await bench.balancer.close()
            await store.close()
    return found


def restored(servers: int, rounds: int) -> dict[str, list[float]]:
    """`ipvsadm --restore` of the same table, and one more server by its own command."""
    lines = [f"-A --sctp-service {VIP}:80 -s wlc"]
    lines += [f"-a --sctp-service {VIP}:80 -r {address(n)}:80 -m -w 100" for n in range(servers)]
    more = ["ipvsadm", "-a", "--sctp-service", f"{VIP}:80", "-r", f"{address(servers)}:80", "-m", "-w", "100"]
    found: dict[str, list[float]] = {"table": [], "event": []}
    for _ in range(rounds):
        subprocess.run(["ipvsadm", "-C"], check=True)
        found["table"].append(_took(lambda: _run(["ipvsadm", "--restore"], "\n".join(lines) + "\n")))
        found["event"].append(_took(lambda: _run(more)))
    return found


def keepalived(servers: int, rounds: int) -> dict[str, list[float]]:
    """keepalived from its file, and one more server by SIGHUP; until the kernel has them."""
    found: dict[str, list[float]] = {"table": [], "event": []}
    for _ in range(rounds):
        subprocess.run(["ipvsadm", "-C"], check=True)
        with tempfile.TemporaryDirectory(dir="/run") as folder:
            config = Path(folder, "keepalived.conf")
            config.write_text(_keepalived(servers))
            begun = time.perf_counter()
            files = ("-f", str(config), "-p", f"{folder}/pid", "-c", f"{folder}/checkers")
            process = subprocess.Popen(
                ["keepalived", "-n", "-l", "-C", *files], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            try:
                _until(servers)
                found["table"].append(time.perf_counter() - begun)
                config.write_text(_keepalived(servers + 1))
                begun = time.perf_counter()
                process.send_signal(1)
                _until(servers + 1)
                found["event"].append(time.perf_counter() - begun)
            finally:
                process.terminate()
                process.wait(30)
    return found


def _keepalived(servers: int) -> str:
    reals = "\n".join(f"  real_server {address(n)} 80 {{\n    weight 100\n  }}" for n in range(servers))
    return (
        "global_defs {\n}\n"
        f"virtual_server {VIP} 80 {{\n  lvs_sched wlc\n  lvs_method NAT\n  protocol SCTP\n{reals}\n}}\n"
    )


def _until(servers: int) -> None:
    """Wait until the kernel has so many: /proc is read, which costs little."""
    deadline = time.monotonic() + 60
    while Path("/proc/net/ip_vs").read_text().count("Masq") < servers:
        if time.monotonic() > deadline:
            raise PxebootError("keepalived did not come so far in a minute", "see its log")
        time.sleep(0.005)


def _run(command: list[str], text: str = "") -> None:
    subprocess.run(command, input=text, text=True, check=True)


def _took(work: Callable[[], None]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def inside(servers: int, rounds: int) -> None:
    """All of it, where the kernel has IPVS: in a network of its own."""
    ipvs.load()
    with IPRoute() as links:
        links.link("set", index=1, state="up")
        links.link("add", ifname="own0", kind="dummy")
        index = links.link_lookup(ifname="own0")[0]
        links.link("set", index=index, state="up")
        links.addr("add", index=index, address="10.64.0.1", prefixlen=16)
    columns = {
        "pxeboot": asyncio.run(ours(servers, rounds)),
        "ipvsadm": restored(servers, rounds),
        "keepalived": keepalived(servers, rounds),
    }
    print(f"{servers} real servers, {rounds} rounds, medians in ms, {machine()}\n")
    print("| | " + " | ".join(columns) + " |\n|---|" + "---|" * len(columns))
    rows = {
        "table": "whole table, from an empty kernel",
        "event": "one node more, from the event to the kernel",
        "round": "a round that finds nothing to do",
        "CPU of a round": "CPU time of such a round",
    }
    for key, words in rows.items():
        cells = [
            f"{statistics.median(col[key]) * 1000:.0f}" if key in col else "-" for col in columns.values()
        ]
        print(f"| {words} | " + " | ".join(cells) + " |")


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="pxeboot-bench-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def outside(servers: int, rounds: int) -> int:
    """Boot a guest for it."""
    command = (
        sys.executable,
        "-m",
        "bench.balancer",
        "--inside",
        "--servers",
        str(servers),
        "--rounds",
        str(rounds),
    )
    with _folder() as folder:
        guest = uml.Guest(
            command, folder, Path.cwd(), memory_mb=1024, modules=("ip_vs", "ip_vs_wlc", "dummy")
        )
        process = uml.start(guest)
        try:
            process.wait(SECONDS)
        finally:
            uml.end(process)
            print(guest.output_log.read_text())
        return guest.status or 0


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--servers", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--inside", action="store_true", help="here, whatever is in this kernel's table")
    told = parser.parse_args()
    for program, package in PACKAGES.items():
        if shutil.which(program) is None:
            raise SystemExit(f"{program} is missing: apt-get install {package}")
    if told.inside:
        inside(told.servers, told.rounds)
        return 0
    return outside(told.servers, told.rounds)


if __name__ == "__main__":
    sys.exit(main())
