"""Tests that need a kernel with IPVS: here where this one has it, else in a guest of User Mode Linux.

All of them share one guest, which runs pytest on them in the same checkout; each is then reported by its own
name. They are marked `ipvs`.
"""

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from pxeboot.balancer import ipvs
from pxeboot.errors import PxebootError
from pxeboot.lab import uml

REPORT = "PXEBOOT_GUEST_REPORT"
"""Where pytest inside the guest tells how each test went; set there only."""
SECONDS = 900.0
MODULES = (
    *("ip_vs", "veth", "bridge", "dummy", "ipip", "ip6_tunnel", "sctp"),
    *("sch_ingress", "cls_u32", "act_skbedit"),
)


def lack() -> str:
    """Why this kernel has no IPVS; "" where it has."""
    try:
        ipvs.load()
    except PxebootError as error:
        return str(error)
    return ""


class Guest:
    """One run of the tests that were asked for, made when the first one is due."""

    def __init__(self, names: Sequence[str], root: Path) -> None:
        self._names = names
        self._root = root
        self._reports: dict[str, tuple[str, str]] | None = None
        self._output = ""

    def outcome(self, name: str) -> tuple[str, str]:
        """ "passed", "failed" or "skipped", and why."""
        if self._reports is None:
            self._reports = self._run()
        missing = ("failed", f"the guest never came to it:\n{self._output[-6000:]}")
        return self._reports.get(name, missing)

    def _run(self) -> dict[str, tuple[str, str]]:
        folder = Path(tempfile.mkdtemp(prefix="pxeboot-guest-"))
        report = folder / "report"
        pytest_here = (
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "--basetemp=/run/pytest",
        )
        command = ("env", f"{REPORT}={report}", *pytest_here, *self._names)
        guest = uml.Guest(command, folder, self._root, memory_mb=1024, modules=MODULES)
        try:
            process = uml.start(guest)
            try:
                process.wait(SECONDS)
            finally:
                uml.end(process)
                logs = (path.read_text(errors="replace") for path in (guest.console_log, guest.output_log)
                        if path.exists())  # fmt: skip
                self._output = "\n".join(logs)
            return _read(report)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


class InGuest(pytest.Item):
    """A test whose outcome comes from the guest."""

    guest: Guest

    def runtest(self) -> None:
        outcome, why = self.guest.outcome(self.nodeid)
        if outcome == "skipped":
            pytest.skip(why)
        if outcome != "passed":
            raise AssertionError(why)
        print(why)  # what the test printed

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: object = None) -> str:
        return f"in the guest:\n{excinfo.value}"

    def reportinfo(self) -> tuple[Path, None, str]:
        return self.path, None, self.name


def divert(items: list[pytest.Item], root: Path) -> None:
    """Have the tests marked `ipvs` run in a guest, where this kernel cannot."""
    wanted = [item for item in items if "ipvs" in item.keywords]
    if not wanted or os.geteuid() != 0 or not lack():
        return
    guest = Guest([item.nodeid for item in wanted], root)
    for number, item in enumerate(items):
        if "ipvs" in item.keywords:
            assert item.parent is not None
            diverted = InGuest.from_parent(item.parent, name=item.name)
            diverted.guest = guest
            for name in {mark.name for mark in item.iter_markers()} - {"timeout"}:
                diverted.add_marker(name)
            diverted.add_marker(pytest.mark.timeout(SECONDS + 60))
            items[number] = diverted


def note(report: pytest.TestReport) -> None:
    """Inside the guest: write down how a test went."""
    path = os.environ.get(REPORT)
    if path is None or (report.when != "call" and report.outcome == "passed"):
        return
    with Path(path).open("a") as file:
        file.write(
            json.dumps([report.nodeid, report.outcome, report.longreprtext or report.capstdout]) + "\n"
        )


def _read(report: Path) -> dict[str, tuple[str, str]]:
    if not report.exists():
        return {}
    found: dict[str, tuple[str, str]] = {}
    for line in report.read_text().splitlines():
        name, outcome, why = json.loads(line)
        if found.get(name, ("passed", ""))[0] == "passed":
            found[name] = (outcome, why)
    return found
