"""Running functions of `initrd/` the way a node does: in busybox's shell."""

import asyncio
import os
import subprocess
from pathlib import Path

INITRD = Path(__file__).parents[2] / "initrd"
LIMIT_S = 30.0
PRELUDE = """
fail() { printf '%s: %s\\n' "$1" "$2"; exit 1; }
jittered() { echo 0.05; }
"""
"""`fail` ends an attempt in init; here its sentence goes to standard output. Pauses are short."""


def environment(run: Path, **variables: str) -> dict[str, str]:
    """The environment for a shell whose PXEBOOT_RUN is `run`; no proxy comes between it and loopback."""
    return {"PATH": f"{run}:{os.environ['PATH']}", "PXEBOOT_RUN": str(run), "no_proxy": "*", **variables}


def program(files: tuple[str, ...], script: str) -> str:
    """A shell program: the files of `initrd/`, the prelude, `script`."""
    return "\n".join([*(f". {INITRD / name}" for name in files), PRELUDE, script])


def call(
    run: Path, files: tuple[str, ...], script: str, *arguments: str, **variables: str
) -> subprocess.CompletedProcess[bytes]:
    """Run `script`, whose $1, $2 … are `arguments`; its output is bytes, because it may be any."""
    return subprocess.run(
        ["busybox", "sh", "-c", program(files, script), "sh", *arguments],
        env=environment(run, **variables),
        capture_output=True,
        timeout=LIMIT_S,
        check=False,
    )


async def call_beside(run: Path, files: tuple[str, ...], script: str, *arguments: str) -> tuple[int, str]:
    """As `call`, while the event loop serves: status, and what it printed on both outputs."""
    process = await asyncio.create_subprocess_exec(
        *("busybox", "sh", "-c", program(files, script), "sh", *arguments),
        env=environment(run),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await asyncio.wait_for(process.communicate(), LIMIT_S)
    assert process.returncode is not None
    return process.returncode, output.decode()
