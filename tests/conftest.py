"""The order of the tests: pure ones, then those with namespaces and sockets, virtual machines last."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import settings

from pxeboot.image.library import Image, Library
from tests import guest

BUILDING = Path(__file__).parent.parent / ".demo"
"""Image and caches are the demo's, so that neither builds what the other has."""

# A time limit for each example would measure the computer's other work: pytest's own time-out is enough.
settings.register_profile("pxeboot", deadline=None)
settings.load_profile("pxeboot")


def pytest_configure(config: pytest.Config) -> None:
    """Let SIGTERM end a run as Ctrl-C does: namespaces and processes of the test under way are taken down."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sort by what a test needs; within that, as the files have it. What needs IPVS may need a guest."""
    guest.divert(items, Path(__file__).parent.parent)
    items.sort(key=lambda item: ("net" in item.keywords) + 2 * ("boot" in item.keywords))


@pytest.fixture(scope="session")
def image() -> Image:
    """The shipped recipe `web`, built from this checkout. Kernel and curl come from caches."""
    command = [
        sys.executable,
        "-m",
        "pxeboot.cli.main",
        "image",
        "build",
        "web",
        "--state-dir",
        str(BUILDING),
    ]
    built = subprocess.run(command, capture_output=True, text=True, timeout=400, check=False)
    assert built.returncode == 0, built.stderr
    return Library(BUILDING / "images").resolve("web")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Inside the guest, the one outside is told."""
    guest.note(report)
