from pathlib import Path

import pytest

from .shell import INITRD, call, environment
from .test_agent import run_script

FILES = ("parameters.sh", "report.sh", "network.sh")
MACS = {"eth0": "52:54:00:00:00:01", "eth1": "52:54:00:00:00:02"}


@pytest.fixture
def net(tmp_path: Path) -> Path:
    """A /sys/class/net with two interfaces: eth0 without a link, eth1 with one."""
    net = tmp_path / "net"
    for name, carrier in (("eth0", "0"), ("eth1", "1"), ("lo", "1")):
        (net / name).mkdir(parents=True)
        (net / name / "carrier").write_text(f"{carrier}\n")
        (net / name / "address").write_text(MACS.get(name, "00:00:00:00:00:00") + "\n")
        if name != "lo":
            (net / name / "device").mkdir()
    return net


def shell(net: Path, script: str, *arguments: str) -> tuple[int, list[str]]:
    result = call(net.parent, FILES, script, *arguments, SYS_NET=str(net))
    return result.returncode, (result.stdout + result.stderr).decode().splitlines()


def test_bootif_names_the_interface(net: Path) -> None:
    assert shell(net, "bootif=01-52-54-00-00-00-02; candidates") == (0, ["eth1"])


def test_without_bootif_every_interface_with_hardware_is_tried(net: Path) -> None:
    assert shell(net, "bootif=; candidates") == (0, ["eth0", "eth1"])


def test_a_bootif_that_is_nowhere_is_said_and_passed_over(net: Path) -> None:
    status, lines = shell(net, "bootif=01-52-54-00-00-00-09; BOOTIF_PATIENCE_S=0; candidates 2>&1")
    assert (status, lines[1:]) == (0, ["eth0", "eth1"])
    assert "no interface has the address 52:54:00:00:00:09" in lines[0]


def test_the_first_interface_with_a_link_is_taken(net: Path) -> None:
    (net / "eth0" / "carrier").unlink()  # cannot be read while the interface is down
    assert shell(net, "first_with_carrier eth0 eth1") == (0, ["eth1"])
    assert shell(net, "first_with_carrier eth0") == (1, [])


def test_a_missing_link_is_shown_and_at_last_a_failure(net: Path) -> None:
    script = "ip() { :; }; bootif=01-52-54-00-00-00-01; CARRIER_PATIENCE_S=1; wait_for_link"
    status, lines = shell(net, script)
    assert (status, len(lines)) == (1, 1)
    assert lines[0].startswith("network: no link on")


def test_a_machine_without_interfaces_says_so(net: Path) -> None:
    status, lines = shell(net, "SYS_NET=/nonexistent; bootif=; wait_for_link")
    assert (status, lines) == (1, ["network: no network interface found; is its driver in the initrd?"])


def test_the_address_of_the_boot_script_is_set_and_written_down(net: Path) -> None:
    script = (
        "ip() { echo ip $*; }; interface=eth1; address=10.0.0.5/24; router=10.0.0.1; dns=10.0.0.1,10.0.0.2; "
    )
    status, lines = shell(net, script + "configure_address")
    assert (status, lines) == (
        0,
        [
            "ip addr flush dev eth1",
            "ip addr add 10.0.0.5/24 broadcast + dev eth1",
            "ip route replace default via 10.0.0.1 dev eth1",
        ],
    )
    written = (net.parent / "network").read_text()
    assert written == "interface=eth1\naddress=10.0.0.5/24\nrouter=10.0.0.1\ndns=10.0.0.1,10.0.0.2\n"


def test_a_later_attempt_keeps_the_address_while_the_link_holds(net: Path) -> None:
    (net.parent / "network").write_text("interface=eth1\naddress=10.0.0.5/24\nrouter=\ndns=\n")
    assert shell(net, "wait_for_link() { echo again; exit; }; bring_network_up; echo $address")[1] == [
        "10.0.0.5/24"
    ]
    (net / "eth1" / "carrier").write_text("0\n")
    assert shell(net, "wait_for_link() { echo again; exit; }; bring_network_up")[1] == ["again"]


def test_udhcpc_is_asked_again_until_it_has_a_lease(net: Path) -> None:
    answers = 'calls=$((calls + 1)); [ $calls -lt 3 ] || echo address=10.0.0.9/24 >"$PXEBOOT_RUN/lease"'
    script = (
        f"udhcpc() {{ {answers}; }}; say() {{ :; }}; calls=0; interface=eth1; ask_dhcp; echo $calls $address"
    )
    assert shell(net, script) == (0, ["3 10.0.0.9/24"])


def test_silence_of_all_dhcp_servers_is_a_failure(net: Path) -> None:
    script = "udhcpc() { :; }; say() { :; }; interface=eth1; DHCP_PATIENCE_S=0; ask_dhcp"
    assert shell(net, script) == (1, ["network: no DHCP server answered on eth1 for 0 s"])


def test_a_lease_is_kept_for_init(tmp_path: Path) -> None:
    lease = {"ip": "10.0.0.9", "mask": "24", "router": "10.0.0.1 10.0.0.2", "dns": "10.0.0.1 10.0.0.3"}
    run_script(INITRD / "udhcpc", "bound", environment=environment(tmp_path, **lease))
    assert (tmp_path / "lease").read_text() == "address=10.0.0.9/24\nrouter=10.0.0.1\ndns=10.0.0.1,10.0.0.3\n"
