"""`[[service]]`: what is accepted, what it means, and what an operator reads when it is not."""

from ipaddress import IPv4Address

import pytest

from pxeboot.balancer.service import ServiceConfig
from pxeboot.config import parse
from pxeboot.errors import PxebootError

SITE = """
[[network]]
interface = "eth1"
subnet = "10.77.0.0/24"
pool = ["10.77.0.100-10.77.0.199"]
[[group]]
name = "web"
image = "web"
match = ["*"]
"""
HEAD = '[[service]]\nname = "www"\ngroup = "web"\nvip = "10.77.0.10"\n'
HEAD6 = HEAD.replace("10.77.0.10", "fd00::10")


def service(lines: str, head: str = HEAD) -> ServiceConfig:
    return parse(SITE + head + lines).service[0]


def refusal(text: str) -> str:
    with pytest.raises(PxebootError) as caught:
        parse(SITE + text, "site.toml")
    assert caught.value.hint
    return f"{caught.value} | {caught.value.hint}"


def test_the_designs_example_is_read() -> None:
    read = service(
        """
        port = 80
        protocol = "tcp"
        scheduler = "wlc"
        forward = "nat"
        check = { kind = "http", path = "/", status = 200, interval_seconds = 2, timeout_seconds = 1,
                  rise = 2, fall = 3 }
        drain_seconds = 30
        slow_start_seconds = 10
        """.replace(",\n                 ", ",")
    )
    assert read.vip == IPv4Address("10.77.0.10")
    assert read.check is not None
    assert read.check.status == (200,)
    assert (read.node_port, read.check_port, read.weight) == (80, 80, 100)


def test_a_site_without_services_needs_no_word_about_them() -> None:
    assert parse(SITE).service == ()


def test_a_tcp_service_is_asked_whether_it_accepts_connections() -> None:
    check = service("port = 80\nreal_port = 8080").health_check
    assert check is not None
    assert (check.kind, check.rise, check.fall) == ("tcp", 2, 3)
    assert service("port = 80\nreal_port = 8080").check_port == 8080


@pytest.mark.parametrize("lines", ['port = 53\nprotocol = "udp"', "firewall_mark = 1"])
def test_a_service_that_nobody_can_connect_to_has_nodes_that_are_ready(lines: str) -> None:
    assert service(lines).health_check is None


def test_two_ports_of_one_address_are_two_services() -> None:
    both = HEAD + "port = 80\n" + HEAD.replace("www", "tls") + "port = 443\n"
    assert [item.claim[-1] for item in parse(SITE + both).service] == [80, 443]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (HEAD, ["service.1: port: a service has either a port or a firewall_mark", "firewall_mark = 1"]),
        (HEAD + "port = 80\nfirewall_mark = 1", ["port: a service has either"]),
        (HEAD + "port = 70000", ["service.1.port: 70000", "less than or equal to 65535"]),
        (HEAD + "port = 0", ["port: 0 (every port) needs persistence_seconds"]),
        (HEAD + 'port = 80\nvpi = "1"', ["service.1.vpi: unknown key", "vip"]),
        (HEAD.replace("10.77.0.10", "10.77.0.150") + "port = 80",
         ["vip: 10.77.0.150 of service 'www' is in the pool 10.77.0.100-10.77.0.199", "outside every pool"]),
        (HEAD.replace("10.77.0.10", "224.0.0.1") + "port = 80", ["vip: 224.0.0.1 cannot be"]),
        (HEAD.replace('"web"', '"php"') + "port = 80", ["'www' is for group 'php'; there is 'web'"]),
        (HEAD + "port = 80\n" + HEAD + "port = 81", ["two services are called 'www'"]),
        (HEAD + "port = 80\n" + HEAD.replace("www", "w2") + "port = 80", ["'www' and 'w2' are the same"]),
        (HEAD + 'port = 80\nscheduler = "random"', ["service.1.scheduler: 'random'", "wlc", "mh"]),
        (HEAD + 'port = 80\nscheduler_flags = ["port"]', ["'port' is for sh and mh, not wlc"]),
        (HEAD + 'port = 80\nscheduler_flags = ["one-packet"]', ["'one-packet' is for UDP"]),
        (HEAD + 'port = 80\nforward = "dr"\nreal_port = 8080', ["forward = 'dr' cannot change the port"]),
        (HEAD + "port = 80\npersistence_prefix = 24", ["persistence_prefix: needs persistence_seconds"]),
        (HEAD + "port = 80\npersistence_seconds = 9\npersistence_prefix = 64", ["64 is longer"]),
        (HEAD + "port = 80\nmin_connections = 5", ["min_connections: needs max_connections"]),
        (HEAD + "port = 80\nmax_connections = 5\nmin_connections = 5", ["must be below max_connections"]),
        (HEAD + "port = 80\nquorum = 2\nhysteresis = 2", ["hysteresis: 2 must be below the quorum of 2"]),
        (HEAD + 'port = 80\nsorry_server = { address = "fd00::1" }', ["fd00::1 is not of the vip's family"]),
        (HEAD + "port = 80\nweights = { web1 = -1 }", ["service.1.weights.web1: -1"]),
        (HEAD6 + "port = 80", ["node_prefix: an IPv6 service needs the /64", "fd00:77::/64"]),
        (HEAD + 'port = 80\ncheck = { kind = "ping" }', ["service.1.check.kind: 'ping'", '"tcp"']),
        (HEAD + 'port = 80\ncheck = { kind = "tcp", path = "/" }', ["path: a check of kind 'tcp' has no"]),
        (HEAD + 'port = 80\ncheck = { kind = "dns" }', ["query: a check of kind 'dns' needs", "query = "]),
        (HEAD + 'port = 80\ncheck = { kind = "script" }', ["command: a check of kind 'script' needs"]),
        (HEAD + 'port = 80\ncheck = { kind = "http", body = "(" }', ["'(' is no regular expression"]),
        (HEAD + 'port = 80\ncheck = { kind = "http", status = 99 }', ["service.1.check.status.1: 99"]),
        (HEAD + 'port = 80\ncheck = { kind = "https", verify = true }', ["verify: the certificate"]),
        (HEAD + 'port = 80\ncheck = { kind = "tcp", timeout_seconds = 9 }', ["timeout_seconds: 9 is longer"]),
        (HEAD + 'firewall_mark = 1\ncheck = { kind = "tcp" }', ["check: a service of many ports must say"]),
        (HEAD + 'port = 9\nprotocol = "sctp"\ncheck = { kind = "tcp" }', ["check: a check of SCTP needs"]),
    ],
)  # fmt: skip
def test_an_error_names_file_key_value_and_remedy(text: str, words: list[str]) -> None:
    told = refusal(text)
    assert [word for word in ["site.toml", *words] if word not in told] == []


@pytest.mark.parametrize("query", ["a..b", ".a", "x" * 64 + ".example", "www example"])
def test_a_name_that_no_dns_message_holds_is_refused(query: str) -> None:
    told = refusal(f'{HEAD}port = 53\nprotocol = "udp"\ncheck = {{ kind = "dns", query = "{query}" }}\n')
    assert told.startswith(f"site.toml: service.1.check.query: {query!r}")
    assert told.endswith('write query = "www.example", the name to ask for')


def test_a_pattern_that_is_no_regular_expression_is_refused() -> None:
    told = refusal(f'{HEAD}port = 80\ncheck = {{ kind = "http", body = "(" }}\n')
    assert told.startswith("site.toml: service.1.check.body: '(' is no regular expression: missing )")


@pytest.mark.parametrize(
    ("line", "key", "remedy"),
    [
        ('check = { kind = "http", status = 99 }', "check.status.1: 99: ", "like [200, 204]"),
        ('check = { kind = "tcp", rise = 0 }', "check.rise: 0: ", "from 1 to 100"),
        ('on_failure = "weight"', "on_failure: 'weight': ", '"quiesce"'),
        ('sorry_server = { address = "x" }', "sorry_server.address: 'x': ", 'address = "10.77.0.5"'),
    ],
)
def test_a_wrong_value_is_named_with_its_key_and_what_would_do(line: str, key: str, remedy: str) -> None:
    told = refusal(f"{HEAD}port = 80\n{line}\n")
    assert told.startswith(f"site.toml: service.1.{key}")
    assert remedy in told.partition(" | ")[2]
