"""What is looked at before the server starts: loaders that are there, missing, or the operator's."""

import errno
from dataclasses import replace
from pathlib import Path

import pytest

from pxeboot.balancer import ipvs
from pxeboot.config import Config, parse
from pxeboot.errors import PxebootError
from pxeboot.preflight import Finding, look, needed_loaders, port_error, resolve
from pxeboot.pxe import arch
from pxeboot.web import tls
from tests.parts import SITE


def config(tmp_path: Path, more: str = "", loader: str = "ipxe") -> Config:
    text = SITE.replace("STATE", str(tmp_path)).replace("kernel_args", f'loader = "{loader}"\nkernel_args')
    return parse(text + more)


@pytest.fixture
def without_ipxe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every loader's package is installed but one, whatever this computer has."""
    for platform, loader in arch.DEFAULT_LOADERS.items():
        path = tmp_path / loader.name
        path.touch()
        monkeypatch.setitem(arch.DEFAULT_LOADERS, platform, replace(loader, path=path))
    absent = replace(arch.SNPONLY_X64, path=Path("/no/such/snponly.efi"))
    monkeypatch.setitem(arch.DEFAULT_LOADERS, "x64-uefi", absent)


@pytest.mark.usefixtures("without_ipxe")
def test_a_package_that_is_not_installed_keeps_nobody_from_starting(tmp_path: Path) -> None:
    site = resolve(config(tmp_path))
    assert site.loaders.missing == {"snponly.efi"}
    assert site.loaders.find(7) == "loader snponly.efi is missing: apt-get install ipxe"


@pytest.mark.usefixtures("without_ipxe")
def test_check_names_the_package_of_a_missing_loader(tmp_path: Path) -> None:
    (found,) = [item for item in look(config(tmp_path)) if item.subject == "loader snponly.efi"]
    assert found.error is not None
    assert found.error.hint == "apt-get install ipxe"


def test_a_file_that_the_operator_names_must_be_there(tmp_path: Path) -> None:
    mine = tmp_path / "arm64.efi"
    named = f'\n[loaders]\narm64-uefi = "{mine}"\n'
    with pytest.raises(PxebootError, match=r"loader arm64\.efi is missing"):
        resolve(config(tmp_path, named))
    mine.touch()
    found = resolve(config(tmp_path, named)).loaders.find(11)
    assert found == arch.Loader("arm64.efi", mine)


def test_what_a_group_is_to_boot_with_must_be_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    absent = replace(arch.LPXELINUX, path=Path("/no/such"))
    monkeypatch.setattr("pxeboot.preflight.LPXELINUX", absent)
    with pytest.raises(PxebootError, match="lpxelinux") as caught:
        resolve(config(tmp_path, loader="pxelinux"))
    assert caught.value.hint == "apt-get install pxelinux"


def test_a_wrong_key_of_loaders_is_refused_and_shown(tmp_path: Path) -> None:
    wrong = config(tmp_path, '\n[loaders]\narm = "/a.efi"\n')
    with pytest.raises(PxebootError, match=r"loaders\.arm: unknown platform"):
        resolve(wrong)
    (found,) = [item for item in look(wrong) if item.subject == "loaders"]
    assert found.error is not None


def test_each_loader_is_needed_once_though_many_numbers_share_it(tmp_path: Path) -> None:
    names = [item.name for item in needed_loaders(config(tmp_path))]
    assert names == ["undionly.kpxe", "grubnetia32.efi", "snponly.efi"]


def test_a_loader_that_few_need_may_be_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    absent = replace(arch.GRUB_X86, path=Path("/no/such/grubnetia32.efi"))
    monkeypatch.setitem(arch.DEFAULT_LOADERS, "x86-uefi", absent)
    (found,) = [item for item in look(config(tmp_path)) if item.subject == "loader grubnetia32.efi"]
    assert (found.error, found.lacks) == (None, True)
    assert "apt-get install grub-efi-ia32-bin" in found.seen
    missing = resolve(config(tmp_path)).loaders.find(6)
    assert missing == "loader grubnetia32.efi is missing: apt-get install grub-efi-ia32-bin"


def test_check_tries_the_certificate_of_https(tmp_path: Path) -> None:
    def found() -> str:
        (one,) = [item for item in look(config(tmp_path, "\n[https]\n")) if item.subject == "certificate"]
        return one.seen if one.error is None else f"{one.error}; {one.error.hint}"

    assert "run `pxeboot tls init`" in found()
    tls.init(tmp_path / "tls", [])
    assert found().startswith("for pxeboot, until 20")
    (tmp_path / "tls" / "authority.pem").write_text("x")
    assert "authority" in found()


SERVICE = """
[[service]]
name = "www"
vip = "10.77.0.10"
interface = "lo"
port = 80
group = "web"
"""


def test_the_program_of_a_check_must_be_there(tmp_path: Path) -> None:
    program = tmp_path / "check"
    wanted = config(tmp_path, f'{SERVICE}check = {{ kind = "script", command = ["{program}", "-v"] }}\n')
    with pytest.raises(
        PxebootError, match=r"service www: check.command: '/.*/check' is no program"
    ) as caught:
        resolve(wanted)
    assert caught.value.hint == "write its whole path, and make it executable: chmod +x"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    resolve(wanted)
    (found,) = [item for item in look(wanted) if item.subject == "check of www"]
    assert (found.seen, found.error) == (str(program), None)


def test_a_router_that_is_not_this_box_is_pointed_out_where_addresses_are_translated(tmp_path: Path) -> None:
    wanted = config(tmp_path, SERVICE)
    (network,) = wanted.network
    other = network.model_copy(update={"router": network.subnet[254]})
    for kept, told in ((network, 0), (other, 1)):
        site = wanted.model_copy(update={"network": (kept,)})
        found = [item for item in look(site) if item.subject.startswith("router of ")]
        assert len(found) == told


@pytest.mark.parametrize(
    ("number", "hint"), [(errno.EACCES, "run pxeboot as root"), (errno.EADDRINUSE, "names who has it")]
)
def test_a_port_that_cannot_be_had_has_its_remedy(number: int, hint: str) -> None:
    assert hint in port_error("10.77.0.1", 69, OSError(number, "")).hint


def seen_of(site: Config, subject: str) -> Finding:
    (found,) = [item for item in look(site) if item.subject == subject]
    return found


def test_a_kernel_without_ipvs_is_told_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ipvs, "_is_there", lambda: False)
    monkeypatch.setattr(ipvs, "_modprobe", lambda: "/bin/false")
    error = seen_of(config(tmp_path, SERVICE), "IPVS").error
    assert "this kernel has no IPVS" in str(error)
    assert error is not None
    assert "modprobe ip_vs" in error.hint
    monkeypatch.setattr(ipvs, "_modprobe", lambda: "/bin/true")
    assert seen_of(config(tmp_path, SERVICE), "IPVS").seen == "a module of this kernel"
    assert not [item for item in look(config(tmp_path)) if item.subject == "IPVS"]  # who has no service


@pytest.mark.parametrize(
    ("keys", "seen", "error"),
    [
        ('interface = "lo"', "10.77.0.10 goes on lo", ""),
        ("manage_vip = false", "10.77.0.10, which somebody else puts here", ""),
        ('interface = "eth77"', "", "service www: interface 'eth77' does not exist"),
        ("", "", "service www: no interface has an address in the subnet of 10.77.0.10"),
    ],
)
def test_a_virtual_address_has_a_place(tmp_path: Path, keys: str, seen: str, error: str) -> None:
    text = SERVICE.replace('interface = "lo"\n', keys + "\n")
    found = seen_of(config(tmp_path, text), "service www")
    assert (found.seen, str(found.error or "")) == (seen, error)
