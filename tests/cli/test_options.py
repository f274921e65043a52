"""Which state directory a command works on."""

from pathlib import Path

import pytest

from pxeboot.cli.options import state_dir_of

CONFIG = '[server]\nstate_dir = "here"\n[[network]]\ninterface = "eth1"\nsubnet = "10.77.0.0/24"\n'


def test_the_directory_named_comes_first_and_is_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert state_dir_of(Path("missing.toml"), Path(".demo")) == tmp_path / ".demo"


def test_the_configuration_says_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert state_dir_of(None, None) == Path("/var/lib/pxeboot")
    (tmp_path / "pxeboot.toml").write_text(CONFIG)
    assert state_dir_of(None, None) == tmp_path / "here"
    (tmp_path / "other.toml").write_text(CONFIG.replace("here", "/there"))
    assert state_dir_of(Path("other.toml"), None) == Path("/there")
