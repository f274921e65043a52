"""Configuration: what is accepted, and what an operator reads when it is not."""

from ipaddress import IPv4Address
from pathlib import Path

import pytest

from pxeboot.config import Config, load, matches, parse
from pxeboot.errors import PxebootError

NETWORK = """
[[network]]
interface = "eth1"
subnet = "10.77.0.0/24"
"""


def refusal(text: str) -> str:
    with pytest.raises(PxebootError) as caught:
        parse(text, "site.toml")
    assert caught.value.hint
    return f"{caught.value} | {caught.value.hint}"


def with_groups(*patterns: str) -> str:
    groups = [f'[[group]]\nname = "g{n}"\nimage = "web"\nmatch = ["{p}"]' for n, p in enumerate(patterns)]
    return NETWORK + "\n".join(groups)


def test_a_network_is_enough() -> None:
    config = parse(NETWORK)
    assert config.server.http_port == 80
    assert config.network[0].lease_seconds == 3600
    assert config.tftp.max_block_size == 1468


def test_the_pool_is_read_as_ranges() -> None:
    config = parse(NETWORK + 'pool = ["10.77.0.100-10.77.0.102", "10.77.0.9"]')
    first, second = config.network[0].pool
    assert (len(first), len(second)) == (3, 1)
    assert IPv4Address("10.77.0.101") in first


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["site.toml: network: is missing", "[[network]]"]),
        ("a = [", ["site.toml: ", "TOML"]),
        ("[serve]\n" + NETWORK, ["site.toml: serve: unknown key", "server"]),
        ("[server]\nport = 80\n" + NETWORK, ["server.port: unknown key", "http_port"]),
        ("[server]\nhttp_port = 0\n" + NETWORK, ["server.http_port: 0", "greater than or equal to 1"]),
        ('[server]\nadmin = "127.0.0.1"\n' + NETWORK, ["server.admin: '127.0.0.1'", "127.0.0.1:8080"]),
        ("[tftp]\nmax_block_size = 4\n" + NETWORK, ["tftp.max_block_size: 4", "8 to 65464"]),
        ('[http]\nlink = "fast"\n' + NETWORK, ["http.link: 'fast' is no rate", '"10Gbit"']),
        ('[http]\nlink = "1Gbit"\nmax_downloads = 5\n' + NETWORK,
         ["http: max_downloads: link limits the downloads already", "alone"]),
        (NETWORK + 'mode = "proxy"\npool = ["10.77.0.9"]',
         ["network.1: mode: a proxy has no pool", "leave the pool out"]),
        (NETWORK + "lease_seconds = 3\n", ["network.1.lease_seconds: 3", "60"]),
        (NETWORK + 'router = "10.78.0.1"', ["network.1: router: 10.78.0.1 is outside 10.77.0.0/24"]),
        (NETWORK + 'pool = ["10.77.1.1-10.77.1.9"]', ["pool: 10.77.1.1 is outside 10.77.0.0/24", "ranges"]),
        (NETWORK + 'pool = ["10.77.0.9-10.77.0.1"]', ["'10.77.0.9-10.77.0.1' ends before it begins"]),
        (NETWORK + 'pool = ["10.77.0.1-10.77.0.9", "10.77.0.5"]', ["overlap", "ranges"]),
        (NETWORK + 'pool = ["10.77.0.250-10.77.0.255"]', ["pool: ", "broadcast"]),
        (NETWORK + 'pool = ["10.77.0.300"]', ["network.1.pool.1", "10.77.0.300"]),
        ('[[network]]\nsubnet = "10.77.0.1/24"\ninterface = "e"', ["network.1.subnet: '10.77.0.1/24'"]),
        ('[[network]]\nsubnet = "10.77.0.0/24"', ["none names an interface"]),
        (NETWORK + 'options = { ntp-server = "10.0.0.1" }',
         ["network.1.options: ntp-server: no option has this name; 'ntp-servers' has", "by name or number"]),
        (NETWORK + 'options = { ntp-servers = ["ntp"] }',
         ["network.1.options: ntp-servers: 'ntp' is not an IPv4 address", 'like ["10.0.0.1", "10.0.0.2"]']),
        (NETWORK + 'options = { "51" = 60 }', ["network.1.options: 51: option 51 follows", "lease_seconds"]),
        (NETWORK + 'options = { vendor-specific = { "300" = "a" } }',
         ["network.1.options: vendor-specific: '300' is not the number of a sub-option", "a table"]),
        (with_groups("*") + '\noptions = { "224" = 7 }', ["group.1.options: 224: 7 is not", "hex:0102"]),
        (NETWORK + "options = 7", ["network.1.options"]),
        ('[server]\nunknown = "maybe"\n' + NETWORK, ["server.unknown: 'maybe'", "'hold'"]),
        (NETWORK + NETWORK, ["10.77.0.0/24 and 10.77.0.0/24 overlap"]),
        (NETWORK + NETWORK.replace("77", "78"), ["interface 'eth1' stands in two networks"]),
        (NETWORK + '[[group]]\nname = "web"\nmatch = ["*"]', ["group.1.image: is missing"]),
        (with_groups("zz:zz"), ["group.1.match.1", "neither a MAC address", "UUIDs"]),
        (with_groups("*", "*"), ["'g0' and 'g1' claim the same machines"]),
        (with_groups("52:54:00:*", "52:54:*"), ["'g0' and 'g1' claim the same machines"]),
        (with_groups("52:54:00:*", "5254.0012.3456"), ["machines (52:54:00:*, 52:54:00:12:34:56)"]),
    ],
)  # fmt: skip
def test_an_error_names_file_key_value_and_remedy(text: str, words: list[str]) -> None:
    told = refusal(text)
    assert [word for word in words if word not in told] == []


def test_options_are_read_as_they_go_on_the_wire() -> None:
    config = parse(
        NETWORK
        + 'options = { ntp-servers = ["10.0.0.1"], "224" = "hex:0102", vendor-specific = { "6" = "hex:08" } }'
    )
    assert config.network[0].options == {42: b"\x0a\0\0\1", 224: b"\1\2", 43: b"\6\1\x08"}


@pytest.mark.parametrize(
    ("lines", "slots"),
    [
        ("", None),
        ('link = "10Gbit"', 50),
        ('link = "1Gbit"\nmin_share = "62.5 Mbit"', 16),
        ('link = "100Mbit"', 1),
        ("max_downloads = 7", 7),
    ],
)
def test_the_link_says_how_many_download_at_once(lines: str, slots: int | None) -> None:
    assert parse(f"[http]\n{lines}\n{NETWORK}").http.slots == slots


def test_everything_else_may_go_to_one_group() -> None:
    config = parse(with_groups("52:54:00:*", "52:55:*", "*"))
    assert [group.match for group in config.group] == [("52:54:00:*",), ("52:55:*",), ("*",)]


def test_a_pattern_fits_by_its_beginning() -> None:
    assert matches("52:54:00:*", "52:54:00:12:34:56")
    assert not matches("52:54:00:*", "52:54:01:12:34:56")
    assert not matches("52:54:00:12:34:56", "52:54:00:12:34:57")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(PxebootError, match=r"there is no such file"):
        load(tmp_path / "pxeboot.toml")


def test_a_file_of_bytes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "pxeboot.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(PxebootError, match="cannot be read"):
        load(path)


def test_the_models_are_frozen() -> None:
    config = parse(NETWORK)
    with pytest.raises(ValueError, match="frozen"):
        config.server = config.server  # type: ignore[misc]
    assert isinstance(config, Config)
