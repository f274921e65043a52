"""An installed copy is whole: it works outside the checkout."""

import subprocess
import sys
from pathlib import Path

import pytest

from pxeboot.image.custom_kernel import load_fragments

CHECKOUT = Path(__file__).parent.parent


@pytest.mark.net
@pytest.mark.timeout(240)
def test_an_installed_copy_has_its_recipes_its_initrd_and_its_kernel(tmp_path: Path) -> None:
    def run(*command: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=200, check=False)

    assert run(sys.executable, "-m", "venv", "copy").returncode == 0
    installed = run("copy/bin/pip", "install", "-q", "--disable-pip-version-check", str(CHECKOUT))
    assert installed.returncode == 0, installed.stderr
    asked = run(
        "copy/bin/python",
        "-c",
        "from pxeboot.resources import initrd_files as files; from pxeboot.image import recipes;"
        "print(recipes.load('web').recipe.name, sorted(item.name for item in files().iterdir()), files());"
        "from pxeboot.image.custom_kernel import load_fragments;"
        "print(load_fragments(['virt', 'nic', 'nfs', 'director']).sha256)",
    )
    assert asked.stdout.startswith(f"web {sorted(item.name for item in (CHECKOUT / 'initrd').iterdir())}")
    assert str(tmp_path) in asked.stdout
    assert asked.stdout.splitlines()[-1] == load_fragments(["virt", "nic", "nfs", "director"]).sha256
    checked = run("copy/bin/pxeboot", "check")
    assert (checked.returncode, "error: pxeboot.toml: there is no such file" in checked.stderr) == (1, True)
