"""The `pxeboot` command in a network namespace, forked from a process that has loaded it before.

A new interpreter needs 5 s in User Mode Linux until it has its modules, and a test needs a dozen.
"""

import multiprocessing
import os
import sys
from collections.abc import Sequence
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from pyroute2 import netns

from pxeboot.cli import main

_LOADED = multiprocessing.get_context("forkserver")
_LOADED.set_forkserver_preload(["tests.balancer.commands", "pxeboot.balancer.loop"])


def start(namespace: str, arguments: Sequence[str], output: Path) -> ForkServerProcess:
    """Begin `pxeboot ARGUMENTS` in the namespace; what it says is appended to a file."""
    process = _LOADED.Process(target=_run, args=(namespace, arguments, output), daemon=True)
    process.start()
    return process


def _run(namespace: str, arguments: Sequence[str], output: Path) -> None:
    netns.setns(namespace, flags=0)
    with output.open("ab", buffering=0) as file:
        os.dup2(file.fileno(), sys.stdout.fileno())
        os.dup2(file.fileno(), sys.stderr.fileno())
    sys.argv = ["pxeboot", *arguments]
    main.main()
