"""Name resolution as an operating system does it: systemd-resolved, asking a real server."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from pyroute2 import IPRoute

from tests.lab.conditions import needs_network
from tests.serving import CLIENT, CONFIG, MAC, SERVER, Served, served, wait_for
from tests.wire import running

# Installing the package changes /etc/resolv.conf of this very computer, so script/setup unpacks it.
UNPACKED = Path(__file__).parent.parent / ".venv/systemd-resolved"
RESOLVED = UNPACKED / "lib/systemd/systemd-resolved"
pytestmark = [
    pytest.mark.net,
    needs_network,
    pytest.mark.skipif(not RESOLVED.exists(), reason=f"{RESOLVED} is missing: run script/setup"),
]
USER = {
    "passwd": "systemd-resolve:x:64999:64999::/:/usr/sbin/nologin\n",
    "group": "systemd-resolve:x:64999:\n",
}
"""Who it wants to run as. First in the files, so that an installed package's has no say."""
DNS = """
[dns]
domain = "boot.example"
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Served]:
    with served(tmp_path, CONFIG + DNS) as started:
        yield started


def give_client_an_address() -> None:
    with IPRoute() as links:
        links.addr("add", index=links.link_lookup(ifname=CLIENT)[0], address="10.77.0.50", prefixlen=24)


def resolved(folder: Path) -> tuple[str, ...]:
    """In a mount namespace of its own: this computer's name resolution is not touched."""
    settings = f"[Resolve]\nDNS={SERVER}\nDomains=~boot.example ~77.10.in-addr.arpa\nFallbackDNS=\n"
    (folder / "resolved.conf").write_text(f"{settings}LLMNR=no\nMulticastDNS=no\n")
    for name, line in USER.items():
        (folder / name).write_text(line + Path("/etc", name).read_text())
    places = (
        f"mount --bind {folder}/passwd /etc/passwd && mount --bind {folder}/group /etc/group && "
        "mount -t tmpfs tmpfs /run && mkdir -p /run/systemd/resolve /run/systemd/resolved.conf.d && "
        f"cp {folder}/resolved.conf /run/systemd/resolved.conf.d/test.conf && "
        "chown -R systemd-resolve: /run/systemd/resolve"
    )
    return ("unshare", "-m", "sh", "-c", f"{places} && exec {RESOLVED}")


def test_systemd_resolved_agrees_with_our_answers(server: Served, tmp_path: Path) -> None:
    assert server.cli("node", "set", MAC, "--name", "web1", "--address", "10.77.0.11").returncode == 0
    server.cable.in_client(give_client_an_address)
    log = tmp_path / "resolved"

    def ask(*words: str) -> str:
        return server.cable.run("dig", "@127.0.0.53", "+time=2", "+tries=1", *words).stdout

    command = resolved(tmp_path)
    with running(server.cable.client, *command, log=log, SYSTEMD_LOG_TARGET="console"):
        wait_for(lambda: ask("web1.boot.example", "+short") == "10.77.0.11\n", 15)
        assert ask("-x", "10.77.0.11", "+short") == "web1.boot.example.\n"
        assert ask("pxeboot.boot.example", "+short") == f"{SERVER}\n"
        assert ask("boot.example", "NS", "+short") == "pxeboot.boot.example.\n"
        assert "status: NXDOMAIN" in ask("web9.boot.example")
        nothing = ask("web1.boot.example", "AAAA")
        assert "status: NOERROR" in nothing
        assert "ANSWER: 0" in nothing
        assert ask("web1.boot.example", "+tcp", "+short") == "10.77.0.11\n"
        assert "degraded" not in log.read_text()  # it says so of servers without EDNS
