"""Somebody else's DHCP server in the lab: dnsmasq, which gives addresses and knows nothing of booting."""

import asyncio
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from pxeboot.errors import PxebootError
from pxeboot.lab import network
from pxeboot.lab.logs import last_lines

PROGRAM = "dnsmasq"
START_SECONDS = 30.0
POLL_SECONDS = 0.1


def check() -> None:
    """Raises PxebootError naming the Debian package that is missing."""
    if shutil.which(PROGRAM) is None:
        raise PxebootError(f"{PROGRAM} is missing", "install it: apt-get install dnsmasq-base")


async def start(run: Callable[[list[str], Path], "subprocess.Popen[bytes]"], log: Path) -> None:
    """Start it and wait until it listens. Raises PxebootError.

    `run` starts a program in the lab's namespace and keeps its output. Before our own server: dnsmasq binds
    port 67 on all interfaces before it settles for its own.
    """
    log.unlink(missing_ok=True)  # noqa: ASYNC240  an earlier lab's would look as if it had started
    child = run(command_line(), log)
    deadline = time.monotonic() + START_SECONDS
    while "DHCP, IP range" not in log.read_text():  # noqa: ASYNC240  a few lines
        if child.poll() is not None or time.monotonic() > deadline:
            raise PxebootError(f"{PROGRAM} did not start:\n{last_lines(log)}", f"see {log}")
        await asyncio.sleep(POLL_SECONDS)


def command_line() -> list[str]:
    """Its arguments, the program first."""
    first, last = network.ADDRESS.ip + 99, network.ADDRESS.ip + 198
    return [
        *(PROGRAM, "--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--no-ping", "--log-dhcp"),
        *(f"--interface={network.FOREIGN}", "--except-interface=lo", "--bind-interfaces"),
        *(f"--dhcp-range={first},{last}", "--dhcp-authoritative", "--leasefile-ro"),
        *(f"--dhcp-option=option:router,{network.ADDRESS.ip}", "--log-facility=-", "--pid-file="),
    ]
