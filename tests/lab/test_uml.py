"""What a guest of User Mode Linux is started with."""

import subprocess
from pathlib import Path

import pytest

from pxeboot.errors import PxebootError
from pxeboot.lab import uml

GUEST = uml.Guest(
    ("demo", "it's me"), Path("/tmp/a guest"), Path("/srv/check out"), modules=("ip_vs", "veth")
)


def test_the_init_script_is_sound_whatever_the_names(tmp_path: Path) -> None:
    script = tmp_path / "init"
    script.write_text(uml.init_script(GUEST))
    subprocess.run(("shellcheck", str(script)), check=True)
    assert "modprobe -a ip_vs veth" in script.read_text()
    assert """demo 'it'"'"'s me' >'/tmp/a guest/output.log' 2>&1""" in script.read_text()


def test_a_guest_without_a_tap_has_no_network() -> None:
    line = uml.command_line(GUEST, Path("/tmp/init"))
    assert line[0] == "linux.uml"
    assert not [word for word in line if word.startswith("vec0")]
    tapped = uml.Guest((), Path("/tmp"), Path("/"), tap="tap0")
    assert "vec0:transport=tap,ifname=tap0,depth=64,gro=1" in uml.command_line(tapped, Path("/tmp/init"))


def test_a_missing_kernel_is_told_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(PxebootError, match=r"linux\.uml is missing") as caught:
        uml.check()
    assert caught.value.hint == "install it: apt-get install user-mode-linux"
