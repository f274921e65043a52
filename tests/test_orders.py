"""What a loader is told to boot: settings of network, group and node brought together."""

from ipaddress import IPv4Address
from pathlib import Path

from pxeboot.app import _subnets
from pxeboot.events import Bus
from pxeboot.image.library import Library
from pxeboot.inventory.node import Node
from pxeboot.inventory.progress import Progress
from pxeboot.inventory.store import open_store
from pxeboot.mac import Mac
from pxeboot.orders import Orders, Refusal
from tests.parts import SITE, make_site, put_image

MAC, SERVER, ADDRESS = Mac("52:54:00:00:00:01"), IPv4Address("127.0.0.1"), IPv4Address("127.0.0.100")
STRANGER = Mac("00:00:00:00:00:01")


async def ask(state_dir: Path, node: Node, text: str = SITE) -> tuple[object, ...] | str:
    """Address, router and DNS servers that a node with a lease is told, or why it is refused."""
    site, library = make_site(state_dir, text), Library(state_dir / "images")
    put_image(library)
    store = open_store(state_dir)
    await store.use_subnets(_subnets(site))
    await store.save_node(node)
    await store.bind(site.networks[0].config.subnet, node.mac, ADDRESS, 0.0, 1e12)
    orders = Orders(site, store, Progress(store, Bus()), library, b"secret")
    told = await orders.for_machine(node.mac, SERVER, "iPXE")
    await store.close()
    return told.reason if isinstance(told, Refusal) else (told.address, told.router, told.dns)


async def test_the_initrd_is_told_what_dhcp_would_tell(tmp_path: Path) -> None:
    assert await ask(tmp_path, Node(MAC, "web1")) == (f"{ADDRESS}/8", SERVER, (SERVER,))


async def test_the_initrd_is_told_the_operators_router_and_servers_too(tmp_path: Path) -> None:
    options = {"routers": "127.0.0.9", "domain-name-servers": ["127.0.0.8", "127.0.0.7"]}
    told = await ask(tmp_path, Node(MAC, "web1", options=options))
    assert told == (
        f"{ADDRESS}/8",
        IPv4Address("127.0.0.9"),
        (IPv4Address("127.0.0.8"), IPv4Address("127.0.0.7")),
    )


async def test_a_machine_that_nobody_has_named_is_told_nothing_where_it_is_held(tmp_path: Path) -> None:
    text = SITE.replace('["52:54:00:*"]', '["*"]')
    held = text.replace("[server]", '[server]\nunknown = "hold"')
    assert await ask(tmp_path / "boot", Node(STRANGER, "node-1"), text) == (f"{ADDRESS}/8", SERVER, (SERVER,))
    assert await ask(tmp_path / "hold", Node(STRANGER, "node-1"), held) == f"no group claims {STRANGER}"
    known = Node(STRANGER, "node-1", known_since=1.0)
    assert await ask(tmp_path / "known", known, held) == (f"{ADDRESS}/8", SERVER, (SERVER,))
