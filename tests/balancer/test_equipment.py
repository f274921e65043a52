from ipaddress import IPv6Address
from typing import Any

from pxeboot.balancer.equipment import eui64, is_equipped, needs, told
from pxeboot.balancer.service import ServiceConfig
from pxeboot.mac import Mac

MAC = Mac("52:54:00:77:00:01")


def service(**keys: Any) -> ServiceConfig:
    return ServiceConfig.model_validate({"name": "www", "vip": "10.0.0.9", "port": 80, "group": "web"} | keys)


NAT, DIRECT = service(), service(forward="dr")
SIX: dict[str, Any] = {"vip": "fd00:1::9", "node_prefix": "fd00:77::/64"}
ADDRESS = "address fd00:77::5054:ff:fe77:1/64"


def test_an_interface_identifier_is_made_as_rfc_4291_has_it() -> None:
    mac = Mac("34:56:78:9a:bc:de")
    assert eui64(mac, IPv6Address("fd00::")) == IPv6Address("fd00::3656:78ff:fe9a:bcde")


def test_each_way_of_forwarding_has_its_needs() -> None:
    assert needs(NAT, MAC) == frozenset()
    assert needs(DIRECT, MAC) == {"dr 10.0.0.9"}
    assert needs(service(forward="tun", **SIX), MAC) == {"tun fd00:1::9", ADDRESS}


def test_a_node_is_told_of_its_groups_services_only() -> None:
    other = service(name="mail", group="mail", forward="dr", vip="10.0.0.8")
    assert (
        told([DIRECT, NAT, other, service(name="b", forward="tun")], "web", MAC) == "dr 10.0.0.9,tun 10.0.0.9"
    )
    assert told([NAT], "web", MAC) == ""


def test_translated_ipv6_needs_a_route_by_the_director() -> None:
    ours = [IPv6Address("fe80::1"), IPv6Address("fd00:77::1")]
    assert told([service(**SIX)], "web", MAC, ours) == f"{ADDRESS},gateway fd00:77::1"
    assert told([service(forward="dr", **SIX)], "web", MAC, ours) == f"{ADDRESS},dr fd00:1::9"


def test_who_lacks_what_a_service_needs_is_not_equipped() -> None:
    assert is_equipped(NAT, MAC, "")
    assert not is_equipped(DIRECT, MAC, "")
    assert not is_equipped(DIRECT, MAC, "dr 10.0.0.99,tun 10.0.0.9")
    assert is_equipped(DIRECT, MAC, "dr 10.0.0.9,tun 10.0.0.9")
