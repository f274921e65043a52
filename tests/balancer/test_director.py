"""The kernel's settings that services need."""

from pxeboot.balancer.director import settings
from pxeboot.balancer.service import ServiceConfig


def service(**keys: object) -> ServiceConfig:
    return ServiceConfig.model_validate(
        {"name": "www", "vip": "10.0.0.1", "port": 80, "group": "web", **keys}
    )


def test_direct_routing_and_tunnels_need_no_forwarding() -> None:
    assert set(settings([service(forward="dr"), service(forward="tun")], ["eth0"])) == {
        "net/ipv4/vs/expire_nodest_conn",
        "net/ipv4/vs/expire_quiescent_template",
    }


def test_address_translation_makes_this_box_a_router_that_tells_nobody_of_shorter_ways() -> None:
    wanted = settings([service()], ["eth0"])
    assert wanted["net/ipv4/ip_forward"] == "1"
    assert wanted["net/ipv4/conf/all/send_redirects"] == wanted["net/ipv4/conf/eth0/send_redirects"] == "0"
    assert "net/ipv6/conf/all/forwarding" not in wanted


def test_translation_of_ipv6_forwards_ipv6_only() -> None:
    wanted = settings([service(vip="fd00::1", node_prefix="fd00:77::/64")], ["eth0"])
    assert wanted["net/ipv6/conf/all/forwarding"] == "1"
    assert "net/ipv4/ip_forward" not in wanted
