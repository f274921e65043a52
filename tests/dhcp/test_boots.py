"""Whole boots of real firmware, captured, and played again to the handlers that serve port 67 and 4011."""

from dataclasses import dataclass, field
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from scapy.layers.inet import IP, UDP
from scapy.utils import rdpcap

from pxeboot.app import _subnets
from pxeboot.config import parse
from pxeboot.dhcp import packet
from pxeboot.dhcp.form import Filled
from pxeboot.dhcp.packet import Packet
from pxeboot.dhcp.responder import Broadcast, Destination, Reply
from pxeboot.dhcp.service import DhcpService
from pxeboot.events import Bus
from pxeboot.inventory.progress import Progress
from pxeboot.inventory.store import open_store
from pxeboot.pxe.arch import choose_loaders
from pxeboot.site import Network, Site
from pxeboot.tftp import packet as tftp

BOOTS = sorted((Path(__file__).parent.parent / "data" / "boots").glob("*.pcap"))
SERVER, EVERYBODY = IPv4Address("10.77.0.1"), IPv4Address("255.255.255.255")
BOOT_OPTIONS = {43, 53, 54, 60, 61, 66, 67, 97, 175}
CONFIG = """
[[network]]
interface = "lab0"
mode = "MODE"
options = OPTIONS
subnet = "10.77.0.0/24"
pool = [POOL]

[[group]]
name = "lab"
image = "web"
match = ["*"]
"""


MENU = (
    '{ vendor-specific = { "6" = "hex:07", "8" = "hex:8001010a4d0001", '
    '"9" = "hex:800107707865626f6f74", "10" = "hex:005072657373204638" } }'
)
"""One item, type 0x8001, from 10.77.0.1 alone, chosen after no seconds."""


@dataclass(frozen=True)
class Datagram:
    """One of a capture."""

    source: tuple[IPv4Address, int]
    destination: tuple[IPv4Address, int]
    data: bytes

    @property
    def is_ours(self) -> bool:
        return self.source[0] == SERVER


def read(path: Path) -> list[Datagram]:
    return [
        Datagram(
            (IPv4Address(frame[IP].src), frame[UDP].sport),
            (IPv4Address(frame[IP].dst), frame[UDP].dport),
            bytes(frame[UDP].payload),
        )
        for frame in rdpcap(str(path))
    ]


@dataclass
class Replay:
    """A server without sockets, whose replies are kept."""

    service: DhcpService
    progress: Progress
    replies: list[Reply] = field(default_factory=list)

    async def hear(self, datagram: Datagram) -> None:
        port = datagram.destination[1]
        if port == 67:
            await self.service.answer(datagram.data, datagram.source[1])
        elif port == 4011:
            reply = await self.service.proxy.answer(datagram.data, datagram.source)
            assert reply is not None
            self.replies.append(reply)


def words(reply: Packet) -> dict[str, object]:
    """What firmware reads of a reply to know what to boot and from where."""
    return {
        "yiaddr": reply.yiaddr,
        "siaddr": reply.siaddr,
        "sname": reply.sname,
        "file": reply.file,
        **{str(code): value for code, value in reply.options.items() if code in BOOT_OPTIONS},
    }


def reached(destination: Destination) -> IPv4Address:
    return EVERYBODY if isinstance(destination, Broadcast) else destination.address


@pytest.mark.parametrize("boot", BOOTS, ids=lambda path: path.stem)
async def test_what_booted_a_machine_is_what_it_would_be_told_today(boot: Path, tmp_path: Path) -> None:
    proxy = boot.stem.endswith("-proxy")
    pool = "" if proxy else '"10.77.0.100-10.77.0.199"'
    text = CONFIG.replace("MODE", "proxy" if proxy else "dhcp").replace("POOL", pool)
    config = parse(text.replace("OPTIONS", MENU if "menu" in boot.stem else "{}"))
    loaders = choose_loaders(
        {"arm64-uefi": Path("/own/grubnetaa64.efi"), "riscv64-uefi": Path("/own/riscv64.efi")}
    )
    site = Site(config, (Network(config.network[0], SERVER),), loaders)
    store = open_store(tmp_path)
    await store.use_subnets(_subnets(site))
    progress = Progress(store, Bus())
    replies: list[Reply] = []

    def send(reply: Reply | Filled) -> None:
        replies.append(Reply(packet.decode(reply.payload), reply.destination))

    replay = Replay(DhcpService("lab0", SERVER, site, store, progress, {}, send), progress, replies)
    datagrams = read(boot)
    for datagram in datagrams:
        if not datagram.is_ours and datagram.destination[1] in (67, 4011):
            await replay.hear(datagram)
    captured = [item for item in datagrams if item.is_ours and item.source[1] in (67, 4011)]
    assert [words(item.packet) for item in replies] == [words(packet.decode(item.data)) for item in captured]
    assert [reached(item.destination) for item in replies] == [item.destination[0] for item in captured]
    mac = packet.decode(datagrams[0].data).mac
    known = await store.boot(mac)
    assert known is not None
    assert known.address is not None
    assert await progress.machine_at(known.address) == mac
    await store.close()


@pytest.mark.parametrize("boot", BOOTS, ids=lambda path: path.stem)
def test_a_machine_asks_tftp_for_the_loader_it_was_told(boot: Path) -> None:
    datagrams = read(boot)
    names = {
        request.name
        for request in (tftp.decode(item.data) for item in datagrams if item.destination[1] == 69)
        if isinstance(request, tftp.ReadRequest)
    }
    loaders = {
        "uefi-pxe": {"snponly.efi"},
        "arm64": {"grubnetaa64.efi"},
        "uboot-arm64": {"grubnetaa64.efi"},
        "uboot-riscv64": {"riscv64.efi"},
    }
    expected = loaders.get(boot.stem.rpartition("-")[0], set())
    assert {name for name in names if name.endswith(".efi")} == expected


def test_there_is_a_capture_of_every_firmware_in_both_modes() -> None:
    kinds = ("bios", "uefi", "uefi-pxe", "uefi-http", "arm64")
    others = ["bios-menu-proxy", "uboot-arm64-dhcp", "uboot-riscv64-dhcp"]
    assert [path.stem for path in BOOTS] == sorted(
        [f"{kind}-{mode}" for kind in kinds for mode in ("dhcp", "proxy")] + others
    )


def test_only_uefi_pxe_beside_a_foreign_server_and_who_has_a_menu_ask_at_4011() -> None:
    asked = {path.stem for path in BOOTS if any(item.destination == (SERVER, 4011) for item in read(path))}
    assert asked == {"uefi-pxe-proxy", "arm64-proxy", "bios-menu-proxy"}
