"""What a lab has started, on disk, so that any later process can end it all.

A lab may die by `kill -9`, with its machines, server and namespace still there. The record names them in
one place for the whole system, as namespaces are named. A pid is used again some day, so each one is kept
with the time its process was started, and nothing is ended on the word of a pid alone.
"""

import contextlib
import os
import select
import shutil
import signal
import time
from pathlib import Path

from pydantic import BaseModel, ValidationError

from pxeboot.errors import PxebootError
from pxeboot.lab import network
from pxeboot.lab.qemu import RUN_FOLDER, Machine

RUN_DIR = Path("/run/pxeboot")

GRACE_SECONDS = 8.0
"""From SIGTERM to SIGKILL: `pxeboot serve` ends within 5 s."""

OWNER_GRACE_SECONDS = 2 * GRACE_SECONDS
"""For the process that runs the lab, which ends everything else first."""


class Process(BaseModel, frozen=True):
    """One process; `started` in clock ticks since the system's start (proc(5), /proc/PID/stat field 22)."""

    pid: int
    started: int


class Record(BaseModel, frozen=True):
    """One lab that is up, or that died without cleaning up."""

    name: str
    owner: Process
    """The process that runs the lab."""
    folder: Path
    """Its files: `run` and `server` go with the lab, the logs stay."""
    machines: tuple[Machine, ...] = ()
    processes: tuple[Process, ...] = ()

    @property
    def run_folder(self) -> Path:
        """Sockets and UEFI variables of the machines."""
        return self.folder / RUN_FOLDER

    @property
    def server_folder(self) -> Path:
        """The state directory of the lab's own server, with its configuration."""
        return self.folder / "server"


def namespace_of(name: str) -> str:
    """The network namespace of the lab called `name`."""
    return f"pxeboot-{name}"


def process(pid: int) -> Process | None:
    """The running process with that pid; None when there is none, or only its zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The second field is the program's name in parentheses, with any character in it.
    state, *fields = stat.rpartition(")")[2].split()
    return None if state in "ZX" else Process(pid=pid, started=int(fields[18]))


def alive(known: Process) -> bool:
    """Whether this very process still runs."""
    return process(known.pid) == known


def claim(record: Record) -> bool:
    """Make `record` the one of its name; True when a crashed lab's leftovers had to be cleared first.

    Raises PxebootError when a lab of that name is up.
    """
    earlier = read(record.name)
    if earlier is not None and alive(earlier.owner):
        raise PxebootError(
            f"a lab is already up: process {earlier.owner.pid} runs it", "end it first: pxeboot lab down"
        )
    crashed = earlier is not None or network.exists(namespace_of(record.name))
    if crashed:
        clear(record.name, earlier)
    RUN_DIR.mkdir(parents=True, exist_ok=True)
    try:
        with _path(record.name).open("x") as file:
            file.write(record.model_dump_json())
    except FileExistsError:
        raise PxebootError("another lab is being started", "wait for it, or: pxeboot lab down") from None
    return crashed


def write(record: Record) -> None:
    """Replace the record, at once and whole."""
    fresh = _path(record.name).with_suffix(".new")
    fresh.write_text(record.model_dump_json())
    fresh.replace(_path(record.name))


def read(name: str) -> Record | None:
    """The record of the lab called `name`. A damaged one is none: its writer died while writing it first."""
    try:
        return Record.model_validate_json(_path(name).read_text())
    except (FileNotFoundError, ValidationError):
        return None


def down(name: str) -> bool:
    """End a lab whoever runs it, and whether it still runs; False when there was nothing to end."""
    record = read(name)
    found = record is not None or network.exists(namespace_of(name))
    if record is not None and alive(record.owner) and record.owner.pid != os.getpid():
        end([record.owner], OWNER_GRACE_SECONDS)
    clear(name, record)
    return found


def clear(name: str, record: Record | None) -> None:
    """End what the record names and what lives in the lab's namespace; delete namespace, files and record.

    Logs stay. Doing it twice is fine, and so is a record that got lost.
    """
    # A process started a moment before its owner was killed may be in no record, but it is in the namespace.
    end([*(record.processes if record else ()), *_inside(namespace_of(name))])
    network.delete(namespace_of(name))
    if record is not None:
        for folder in (record.run_folder, record.server_folder):
            shutil.rmtree(folder, ignore_errors=True)
    _path(name).unlink(missing_ok=True)


def end(processes: list[Process], grace_seconds: float = GRACE_SECONDS) -> None:
    """Ask these processes to end, wait for all of them, and kill those that stay."""
    with contextlib.ExitStack() as descriptors:
        open_ones = [fd for known in processes if (fd := _open(known, descriptors)) is not None]
        for sign, wait_seconds in ((signal.SIGTERM, grace_seconds), (signal.SIGKILL, GRACE_SECONDS)):
            for descriptor in open_ones:
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(descriptor, sign)
            open_ones = _wait(open_ones, wait_seconds)


def _open(known: Process, descriptors: contextlib.ExitStack) -> int | None:
    """A descriptor of this very process, whatever becomes of its pid; None when it has ended."""
    try:
        descriptor = os.pidfd_open(known.pid)
    except ProcessLookupError:
        return None
    descriptors.callback(os.close, descriptor)
    return descriptor if alive(known) else None


def _wait(descriptors: list[int], seconds: float) -> list[int]:
    """Those that have not ended after that long."""
    deadline = time.monotonic() + seconds
    left = list(descriptors)
    while left and (remaining := deadline - time.monotonic()) > 0:
        ended, _, _ = select.select(left, [], [], remaining)  # a pidfd is readable when its process has ended
        left = [descriptor for descriptor in left if descriptor not in ended]
    return left


def _inside(namespace: str) -> list[Process]:
    return [known for pid in network.processes(namespace) if (known := process(pid)) is not None]


def _path(name: str) -> Path:
    return RUN_DIR / f"lab-{name}.json"
