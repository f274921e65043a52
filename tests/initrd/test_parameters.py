from pathlib import Path

import pytest

from .shell import call

FILES = ("parameters.sh",)
GOOD = {
    "pxeboot.url": "http://10.77.0.1:8081/boot/AbC_-x.y",
    "pxeboot.image": "1" * 64,
    "pxeboot.root": "ab" * 32,
    "pxeboot.size": "69206016",
    "pxeboot.name": "node-1",
}


def command_line(**changes: str | None) -> str:
    """A kernel command line; a value of None leaves the parameter out."""
    values = GOOD | {f"pxeboot.{key}": value for key, value in changes.items()}
    words = [f"{key}={value}" for key, value in values.items() if value is not None]
    return " ".join(["initrd=initrd", *words, "console=ttyS0,115200n8"])


def problem(run: Path, line: str) -> str:
    (run / "cmdline").write_text(line + "\n")
    result = call(run, FILES, 'read_parameters "$1"; parameter_problem', str(run / "cmdline"))
    assert (result.stderr, result.returncode) == (b"", 0 if result.stdout else 1)
    return result.stdout.decode().strip()


def test_parameters_are_found_anywhere_on_the_line(tmp_path: Path) -> None:
    line = "* quiet BOOTIF=01-52-54-00-aa-bb-cc pxeboot.debug pxeboot.address=10.77.0.100/24 pxeboot.name=n"
    (tmp_path / "cmdline").write_text(line)
    show = 'read_parameters "$1"; echo "$bootif|$debug|$address|$name|$router|$url"'
    result = call(tmp_path, FILES, show, str(tmp_path / "cmdline"))
    assert result.stdout == b"01-52-54-00-aa-bb-cc|yes|10.77.0.100/24|n||\n"


def test_what_the_boot_script_passes_is_accepted(tmp_path: Path) -> None:
    assert problem(tmp_path, command_line()) == ""


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("url", None),
        ("url", "ftp://10.77.0.1/boot/x"),
        ("url", 'https://pxeboot/boot/"x'),
        ("url", 'http://10.77.0.1/boot/"x'),
        ("root", "ab" * 31),
        ("root", "AB" * 32),
        ("image", None),
        ("size", None),
        ("size", "0"),
        ("size", "-5"),
        ("size", "12k"),
        ("size", "9" * 20),
        ("name", None),
        ("name", "a/b"),
        ("name", "-a"),
    ],
)
def test_a_bad_parameter_is_named(tmp_path: Path, key: str, value: str | None) -> None:
    assert problem(tmp_path, command_line(**{key: value})).startswith(f"pxeboot.{key} ")


def test_bootif_becomes_a_mac_address_as_sysfs_writes_it(tmp_path: Path) -> None:
    result = call(tmp_path, FILES, 'bootif_mac "$1"', "01-52-54-00-AA-bb-0F")
    assert result.stdout == b"52:54:00:aa:bb:0f"


SECURE = {"url": "https://pxeboot:8443/boot/x", "server": "10.77.0.1", "time": "1800000000"}


def secure_problem(run: Path, line: str) -> str:
    (run / "cmdline").write_text(line)
    script = 'read_parameters "$1"; parameter_problem || echo "fine at $now"'
    return call(run, FILES, script, str(run / "cmdline"), PXEBOOT_LIB=str(run)).stdout.decode().strip()


def test_https_needs_an_address_and_an_authority(tmp_path: Path) -> None:
    assert "pxeboot.server" in secure_problem(tmp_path, command_line(**{**SECURE, "server": None}))
    assert "pxeboot.server" in secure_problem(tmp_path, command_line(**{**SECURE, "server": '1.2.3.4"'}))
    assert "no authority" in secure_problem(tmp_path, command_line(**SECURE))
    (tmp_path / "authority.pem").write_text("PEM")
    assert secure_problem(tmp_path, command_line(**SECURE)) == "fine at 1800000000"


@pytest.mark.parametrize(
    ("word", "problem"),
    [
        ("pxeboot.bond=802.3ad pxeboot.bond_members=eth0,52:54:00:00:00:01", ""),
        ("pxeboot.bond=lacp", "pxeboot.bond=lacp is no mode of bonding, like active-backup or 802.3ad"),
        (
            "pxeboot.bond_members=eth0;reboot",
            "pxeboot.bond_members is no list of interfaces or MAC addresses",
        ),
        ("pxeboot.vlan=4094", ""),
        ("pxeboot.vlan=4095", "pxeboot.vlan=4095 is no VLAN identifier, 1 to 4094"),
        ("pxeboot.vlan=05", "pxeboot.vlan=05 is no VLAN identifier, 1 to 4094"),
        ("pxeboot.zram=50%", ""),
        ("pxeboot.zram=half", "pxeboot.zram=half is no share of the memory, like 50%"),
        ("pxeboot.zram=301%", "pxeboot.zram=301% is no share of the memory, like 50%"),
    ],
)
def test_what_an_operator_adds_is_checked(tmp_path: Path, word: str, problem: str) -> None:
    (tmp_path / "cmdline").write_text(f"quiet {word}\n")
    result = call(tmp_path, FILES, 'read_parameters "$1"; option_problem', str(tmp_path / "cmdline"))
    assert (result.returncode, result.stdout.decode().strip()) == (0 if problem else 1, problem)
