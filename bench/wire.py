"""Two network namespaces joined by a veth pair, and programs in them, each on one core."""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pyroute2 import IPRoute, netns

from pxeboot.errors import PxebootError
from pxeboot.lab import network

SERVER_CORE, LOAD_CORE = 0, 1
INTERFACE = "bench0"
"""The server's end of the wire; the load's is the same name in the other namespace."""
PREFIX_BITS = 14
SERVER_ADDRESS, LOAD_ADDRESS = "10.64.0.1", "10.64.0.2"


@dataclass(frozen=True)
class Wire:
    """The names of the two namespaces."""

    server: str
    load: str

    @contextlib.contextmanager
    def serving(self, command: Sequence[str], log: Path) -> Iterator["subprocess.Popen[bytes]"]:
        """A program on the server's side and its core; killed with the block."""
        with log.open("ab") as output:
            process = network.in_namespace(
                self.server,
                lambda: subprocess.Popen(
                    [*_pinned(SERVER_CORE), *command], stdin=subprocess.DEVNULL, stdout=output, stderr=output
                ),
            )
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    def load_from(self, command: Sequence[str], seconds: float) -> str:
        """What a program on the other side and core printed; killed when it takes longer."""
        done = network.in_namespace(
            self.load,
            lambda: subprocess.run(
                [*_pinned(LOAD_CORE), *command],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=seconds,
                check=False,
            ),
        )
        return done.stdout


def _pinned(core: int) -> list[str]:
    return ["taskset", "--cpu-list", str(core)]


@contextlib.contextmanager
def wire(name: str = "pxeboot-bench") -> Iterator[Wire]:
    """Lay the wire, with an address on each end; nothing of it is left after the block."""
    laid = Wire(f"{name}-server", f"{name}-load")
    _remove(laid)  # what a killed run has left
    try:
        for namespace in (laid.server, laid.load):
            netns.create(namespace)
        network.in_namespace(laid.server, lambda: _lay(laid.load))
        network.in_namespace(laid.load, lambda: _address(LOAD_ADDRESS))
        yield laid
    finally:
        _remove(laid)


def _remove(laid: Wire) -> None:
    network.delete(laid.server)
    network.delete(laid.load)


def _lay(load: str) -> None:
    with IPRoute() as links:
        links.link("add", ifname=INTERFACE, kind="veth", peer={"ifname": INTERFACE, "net_ns_fd": load})
    _address(SERVER_ADDRESS)


def _address(address: str) -> None:
    with IPRoute() as links:
        index = links.link_lookup(ifname=INTERFACE)[0]
        links.addr("add", index=index, address=address, prefixlen=PREFIX_BITS)
        for interface in ("lo", INTERFACE):
            links.link("set", index=links.link_lookup(ifname=interface)[0], state="up")


def cpu_seconds(pid: int) -> float:
    """CPU time of a process so far, user and system (proc(5), /proc/pid/stat fields 14 and 15)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def check(programs: dict[str, str]) -> None:
    """Refuse to begin where something is missing. `programs`: command -> package. Raises PxebootError."""
    if os.geteuid() != 0:
        raise PxebootError("network namespaces are root's to make", "run it as root")
    if (os.cpu_count() or 1) <= LOAD_CORE:
        raise PxebootError("this machine has one core", "server and load need a core each")
    missing = sorted({package for program, package in programs.items() if shutil.which(program) is None})
    if missing:
        raise PxebootError(
            f"Debian packages are missing: {' '.join(missing)}", f"apt-get install {' '.join(missing)}"
        )


def machine() -> str:
    """Processor, cores, memory and kernel, as one line; nothing that names this computer."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        os.uname().machine,
    )
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    return f"{model}, {os.cpu_count()} cores, {memory:.0f} GiB, Linux {os.uname().release}"
