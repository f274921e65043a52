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


FAKE_IP = "ip() { echo ip $*; }; modprobe() { echo modprobe $*; }; "


def fake_bond(net: Path) -> None:
    """What the kernel shows of bond0; the links it does not have itself are up."""
    (net / "bond0" / "bonding").mkdir(parents=True)
    (net / "bond0" / "carrier").write_text("1\n")


def test_a_bond_begins_with_the_interface_that_booted(net: Path) -> None:
    fake_bond(net)
    slaves = net / "bond0" / "bonding" / "slaves"
    slaves.touch()
    script = FAKE_IP + "bond=802.3ad; bond_members=; interface=eth1; make_bond; echo $interface"
    status, lines = shell(net, script)
    assert (status, lines) == (
        0,
        [
            "ip link set bond0 down",
            "ip link set eth1 down",
            "ip link set eth0 down",
            "ip link set bond0 up",
            "pxeboot: network: bond0 (802.3ad) of eth1 eth0",
            "bond0",
        ],
    )
    written = {path.name: path.read_text() for path in (net / "bond0" / "bonding").iterdir()}
    assert written == {"mode": "802.3ad\n", "miimon": "100\n", "lacp_rate": "fast\n", "slaves": "+eth0\n"}


def test_members_of_a_bond_are_named_by_interface_or_mac(net: Path) -> None:
    members = "eth0,52:54:00:00:00:02,52:54:00:00:00:09"
    status, lines = shell(net, f"interface=eth1; bond_members={members}; bond_interfaces")
    assert (status, lines) == (
        0,
        ["eth1", "eth0", "pxeboot: network: no interface has the address 52:54:00:00:00:09"],
    )


def test_a_kernel_without_bonding_is_told(net: Path) -> None:
    status, lines = shell(net, FAKE_IP + "bond=802.3ad; bond_members=; interface=eth1; make_bond")
    assert (status, lines[-1]) == (1, "network: this kernel has no bonding")


def test_a_vlan_is_put_on_the_interface_that_booted(net: Path) -> None:
    script = FAKE_IP + "await_link() { :; }; vlan=5; interface=eth1; make_vlan; echo $interface"
    assert shell(net, script) == (
        0,
        [
            "modprobe -q 8021q",
            "ip link add link eth1 name eth1.5 type vlan id 5",
            "ip link set eth1.5 up",
            "eth1.5",
        ],
    )


def test_what_the_kernels_dhcp_client_has_set_is_taken_over(net: Path) -> None:
    (net.parent / "pnp").write_text(
        "#PROTO: DHCP\nnameserver 10.0.0.2\nnameserver 10.0.0.3\nnameserver 0.0.0.0\n"
    )
    script = """
        ip() {
            case "$*" in
                *addr*) echo '2: eth1    inet 10.0.0.5/24 brd 10.0.0.255 scope global eth1' ;;
                *route*) echo 'default via 10.0.0.1 dev eth1 ' ;;
            esac
        }
        interface=eth1; adopt_address $1; echo $address $router $dns
    """
    assert shell(net, script, str(net.parent / "pnp")) == (0, ["10.0.0.5/24 10.0.0.1 10.0.0.2,10.0.0.3"])


def test_an_interface_without_an_address_is_left_to_dhcp(net: Path) -> None:
    assert shell(net, "ip() { :; }; interface=eth1; adopt_address /nonexistent") == (1, [])
