"""A second kernel as a process: User Mode Linux, with this box's own files as its root.

For what the host's kernel may not have (IPVS, netem): the guest runs the very same Python and checkout. It
has one processor, its own network and processes, its own /run, /sys and /proc; other files are the host's.
"""

import os
import shlex
import shutil
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pxeboot.errors import PxebootError

KERNEL = "linux.uml"
MODULES = Path("/usr/lib/uml/modules")
PACKAGE = "user-mode-linux"
END_SECONDS = 10.0
"""How long a guest that was told to end may take."""


@dataclass(frozen=True, slots=True)
class Guest:
    """What one guest runs, and where its files are."""

    command: tuple[str, ...]
    """Program and arguments; the guest halts when it ends."""
    folder: Path
    """`console.log` (the kernel's words), `output.log` (the command's), `status` (its exit code) go here."""
    directory: Path
    """Where the command starts."""
    memory_mb: int = 512
    tap: str = ""
    """A tap of the network namespace that `start` is called in; `vec0` inside the guest."""
    modules: tuple[str, ...] = ()
    """Loaded before the command starts."""

    @property
    def console_log(self) -> Path:
        """What the guest's kernel said."""
        return self.folder / "console.log"

    @property
    def output_log(self) -> Path:
        """What the command wrote."""
        return self.folder / "output.log"

    @property
    def status(self) -> int | None:
        """The command's exit code; None: it has not ended."""
        try:
            return int((self.folder / "status").read_text())
        except (FileNotFoundError, ValueError):
            return None


def check() -> None:
    """Raises PxebootError naming the Debian package that is missing."""
    for program, package in ((KERNEL, PACKAGE), ("modprobe", "kmod")):
        if shutil.which(program) is None:
            raise PxebootError(f"{program} is missing", f"install it: apt-get install {package}")
    if not any(MODULES.glob("*")):
        raise PxebootError(f"{MODULES} has no modules", f"install them: apt-get install {PACKAGE}")


def prepare(guest: Guest) -> list[str]:
    """Make its folder; the command that boots it. Raises PxebootError where a package is missing."""
    check()
    guest.folder.mkdir(parents=True, exist_ok=True)
    (guest.folder / "status").unlink(missing_ok=True)
    script = guest.folder / "init"
    script.write_text(init_script(guest))
    script.chmod(0o755)
    return command_line(guest, script)


def start(guest: Guest) -> "subprocess.Popen[bytes]":
    """Boot it; it is up in about 2 s. Raises PxebootError where a package is missing."""
    command = prepare(guest)
    with guest.console_log.open("wb") as console:
        # A session of its own: the guest is many processes, ended together by `end`.
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=console,
            start_new_session=True,
        )


def end(process: "subprocess.Popen[bytes]") -> None:
    """Pull the plug, if it has not halted by itself."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(END_SECONDS)


def command_line(guest: Guest, script: Path) -> list[str]:
    """The kernel's arguments, the program first."""
    network = [f"vec0:transport=tap,ifname={guest.tap},depth=64,gro=1"] if guest.tap else []
    return [
        KERNEL,
        *("root=none", "rootfstype=hostfs", "rootflags=/", "rw", "quiet", f"mem={guest.memory_mb}M"),
        *(f"init={script}", "con=null", "con0=null,fd:1", *network),
    ]


def init_script(guest: Guest) -> str:
    """The guest's first process: file systems, modules, the command, the end."""
    return f"""#!/bin/sh
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t tmpfs tmpfs /run
mkdir -p /lib/modules
mount -t tmpfs tmpfs /lib/modules
mkdir -p /run/netns /run/lock
ln -s {MODULES}/"$(uname -r)" /lib/modules/"$(uname -r)"
{_modprobe(guest.modules)}
cd {shlex.quote(str(guest.directory))} || halt -f
{shlex.join(guest.command)} >{shlex.quote(str(guest.output_log))} 2>&1 </dev/null
echo $? >{shlex.quote(str(guest.folder / "status"))}
sync
halt -f
"""


def _modprobe(modules: Sequence[str]) -> str:
    return f"modprobe -a {shlex.join(modules)}" if modules else ":"
