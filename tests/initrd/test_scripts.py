import shutil
import subprocess
from pathlib import Path

import pytest

from .shell import INITRD

SCRIPTS = sorted(
    path for path in INITRD.iterdir() if path.read_bytes()[:1] == b"#" and "sh" in path.read_text()[:40]
)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_busybox_reads_every_script(path: Path) -> None:
    subprocess.run(["busybox", "sh", "-n", str(path)], check=True)


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_shellcheck_finds_nothing() -> None:
    subprocess.run(["shellcheck", *map(str, SCRIPTS)], check=True)
