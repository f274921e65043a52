"""Where the lab's server runs: beside the machines, or, to direct a service, in a kernel that has IPVS.

In the lab's namespace it is a process like any other, and its Unix socket is on disk. Where this kernel has
no IPVS and a service is wanted, it is a guest of User Mode Linux with one cable to the bridge: the same
checkout, another kernel, and its API is reached by the network.
"""

import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Interface
from pathlib import Path
from typing import Literal

from pxeboot.balancer import ipvs
from pxeboot.errors import PxebootError
from pxeboot.lab import network, uml
from pxeboot.lab.guest import INTERFACE
from pxeboot.lab.relay import Relay

Forward = Literal["nat", "dr", "tun"]

VIP = "10.77.0.10"
ADMIN = (str(network.ADDRESS.ip), 8080)
TAP = "director0"
_MODULES = ("ip_vs", "ip_vs_rr")


def client_for(forward: Forward | None) -> IPv4Interface | None:
    """Where the client of a service is: outside, where answers have to come back through the director."""
    return None if forward is None else network.FAR_CLIENT if forward == "nat" else network.NEAR_CLIENT


class Seat:
    """One way to run the server; `folder` is for its logs, `server` for its configuration and state."""

    def __init__(self, folder: Path, server: Path, namespace: str, forward: Forward | None) -> None:
        self._folder = folder
        self._server = server
        self._namespace = namespace
        self._forward = forward
        self._relay: Relay | None = None
        self.in_guest = forward is not None and not _kernel_has_ipvs()

    def check(self) -> None:
        """Raises PxebootError where a service is wanted and no kernel can have it."""
        if self.in_guest:
            try:
                uml.check()
            except PxebootError as error:
                raise PxebootError(
                    f"this kernel has no IPVS, and {error}", f"{error.hint}; or do without: --service none"
                ) from error

    @property
    def words(self) -> str:
        """What runs, for people."""
        return (
            "pxeboot serve in User Mode Linux (this kernel has no IPVS)" if self.in_guest else "pxeboot serve"
        )

    @property
    def interface(self) -> str:
        """The server's interface in the lab's network."""
        return INTERFACE if self.in_guest else network.BRIDGE

    @property
    def taps(self) -> list[str]:
        """What it needs in the bridge."""
        return [TAP] if self.in_guest else []

    @property
    def addresses(self) -> tuple[IPv4Interface, ...]:
        """The bridge's own: the server's, unless it brings them itself."""
        return () if self.in_guest else (network.ADDRESS, network.OUTSIDE)[: 1 + (self._forward is not None)]

    @property
    def state_dir(self) -> Path:
        """The server's; a guest's Unix socket there is of no use to us."""
        return self._server / "state" if self.in_guest else self._server

    @property
    def config(self) -> Path:
        """The server's configuration file."""
        return self._server / "pxeboot.toml"

    @property
    def socket(self) -> Path:
        """The Unix socket of its API."""
        return self._server / "pxeboot.sock"

    @property
    def log(self) -> Path:
        """What the server logs."""
        return self._guest.output_log if self.in_guest else self._folder / "server.log"

    @property
    def _guest(self) -> uml.Guest:
        command = (sys.executable, "-m", "pxeboot.lab.guest", str(self.config))
        return uml.Guest(command, self._folder / "director", _CHECKOUT, tap=TAP, modules=_MODULES)

    async def start(
        self, run: Callable[[list[str], Path], "subprocess.Popen[bytes]"]
    ) -> "subprocess.Popen[bytes]":
        """Start it; `run` starts a program in the lab's namespace and keeps its output."""
        if not self.in_guest:
            return run([sys.executable, "-m", "pxeboot.cli.main", "serve", "-c", str(self.config)], self.log)
        self.log.unlink(missing_ok=True)  # an earlier lab's
        child = run(uml.prepare(self._guest), self._guest.console_log)
        if self._relay is None:
            client = network.client_of(self._namespace)
            self._relay = Relay(self.socket, client, ADMIN)
            await self._relay.start()
        return child

    async def close(self) -> None:
        """Let go of the API."""
        if self._relay is not None:
            await self._relay.close()


def _kernel_has_ipvs() -> bool:
    """Asked in a thread of its own: pyroute2 runs an event loop, and there may be one here already."""
    try:
        with ThreadPoolExecutor(1) as thread:
            thread.submit(ipvs.look).result()
    except PxebootError:
        return False
    return True


_CHECKOUT = Path(__file__).parents[2]
