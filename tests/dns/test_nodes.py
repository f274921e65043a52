"""The zone follows the store and the configuration: nodes, their IPv6 addresses, services."""

import time
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from uuid import UUID

from dnslib import QTYPE, DNSLabel

from pxeboot.app import _subnets
from pxeboot.dns.nodes import NodeNames
from pxeboot.events import Bus
from pxeboot.inventory.node import Node, unseen_mac
from pxeboot.inventory.store import open_store
from pxeboot.mac import Mac
from tests.parts import SITE, make_site

OWN = IPv4Address("127.0.0.1")
SERVICES = """
[[service]]
name = "www"
vip = "192.0.2.80"
port = 80
group = "web"

[[service]]
name = "www6"
vip = "2001:db8:1::80"
port = 443
group = "web"
node_prefix = "2001:db8:1::/64"

[[service]]
name = "all"
vip = "192.0.2.81"
port = 0
persistence_seconds = 60
group = "web"
"""


async def test_names_follow_leases_services_and_the_configuration(tmp_path: Path) -> None:
    site = make_site(tmp_path)
    store = open_store(tmp_path)
    await store.use_subnets(_subnets(site))
    names = NodeNames("boot.example", site, store, Bus())

    async def ask(name: str, rtype: int) -> list[str]:
        await names.refresh()
        answer = names.zone(OWN).answer(DNSLabel(f"{name}.boot.example"), rtype)
        return [str(rr.rdata) for rr in answer.records]

    mac = Mac("52:54:00:77:00:01")
    await store.save_node(Node(mac, "web1", group="web"))
    assert await ask("web1", QTYPE.A) == []
    await store.bind(IPv4Network("127.0.0.0/8"), mac, IPv4Address("127.0.0.150"), time.time(), 60.0)
    assert await ask("web1", QTYPE.A) == ["127.0.0.150"]
    assert await ask("web1", QTYPE.AAAA) == []
    before = names.zone(OWN)
    await names.refresh()
    assert names.zone(OWN) is before  # nothing has changed

    site.config = make_site(tmp_path, SITE + SERVICES).config
    assert await ask("www", QTYPE.A) == ["192.0.2.80"]
    assert await ask("_www._tcp", QTYPE.SRV) == ["0 100 80 www.boot.example."]
    assert await ask("_www6._tcp", QTYPE.SRV) == ["0 100 443 www6.boot.example."]
    assert await ask("_all._tcp", QTYPE.SRV) == []  # it has no port of its own
    assert await ask("all", QTYPE.A) == ["192.0.2.81"]
    assert await ask("web1", QTYPE.AAAA) == ["2001:db8:1:0:5054:ff:fe77:1"]
    assert names.zone(OWN).serial > before.serial

    await store.save_node(Node(Mac("52:54:00:77:00:02"), "www", address=IPv4Address("127.0.0.9")))
    assert await ask("www", QTYPE.A) == ["192.0.2.80"]  # a service holds over a node of its name
    await store.save_node(Node(unseen_mac(UUID(int=7)), "db1", UUID(int=7), "web", by_uuid=True))
    assert await ask("db1", QTYPE.AAAA) == []  # its card has not been seen
    await store.close()
