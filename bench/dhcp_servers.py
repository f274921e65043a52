"""pxeboot and its peers as the DHCP benchmark runs them: configuration, command, version.

Each keeps its leases on disk as it does by default and logs as it does by default, into a file. Probing of
addresses is off in all of them, since nobody is there to answer.
"""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

from bench.wire import INTERFACE, PREFIX_BITS, SERVER_ADDRESS

SUBNET, NETMASK = "10.64.0.0", "255.252.0.0"
FIRST = IPv4Address("10.64.1.0")
LEASE_SECONDS = 3600


@dataclass(frozen=True)
class DhcpServer:
    """One contender. `prepare` writes its files into a directory and returns its command; given the last
    address of the pool, for a pool much larger than the site slows some of them down."""

    name: str
    program: str
    package: str
    prepare: Callable[[Path, IPv4Address], list[str]]
    version_command: tuple[str, ...]
    guess: float
    """Exchanges per second at which to look first for its highest rate; only the time of the search depends
    on it."""

    @property
    def version(self) -> str:
        """What it says of itself: the first number with a dot in it."""
        done = subprocess.run(self.version_command, capture_output=True, text=True, check=False)
        found = re.search(r"\d+\.\d[\w.-]*", done.stdout + done.stderr)
        return found.group() if found else "?"


def _pxeboot(files: Path, last: IPv4Address) -> list[str]:
    config = files / "pxeboot.toml"
    config.write_text(f"""
[server]
state_dir = "{files}"
[[network]]
interface = "{INTERFACE}"
subnet = "{SUBNET}/{PREFIX_BITS}"
pool = ["{FIRST}-{last}"]
lease_seconds = {LEASE_SECONDS}
probe_conflicts = false
""")
    return [sys.executable, "-m", "pxeboot.cli.main", "serve", "-c", str(config)]


def _dnsmasq(files: Path, last: IPv4Address) -> list[str]:
    return [
        "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--user=root", "--no-ping",
        f"--pid-file={files / 'pid'}", f"--interface={INTERFACE}", "--log-facility=-", "--dhcp-authoritative",
        f"--dhcp-range={FIRST},{last},{NETMASK},{LEASE_SECONDS}", "--dhcp-lease-max=200000",
        f"--dhcp-option=option:router,{SERVER_ADDRESS}", f"--dhcp-leasefile={files / 'leases'}",
    ]  # fmt: skip


def _kea(files: Path, last: IPv4Address) -> list[str]:
    config = files / "kea.json"
    dhcp4 = {
        "interfaces-config": {"interfaces": [INTERFACE], "dhcp-socket-type": "udp"},
        "lease-database": {"type": "memfile", "persist": True, "name": str(files / "leases.csv")},
        "valid-lifetime": LEASE_SECONDS,
        "subnet4": [
            {
                "subnet": f"{SUBNET}/{PREFIX_BITS}",
                "pools": [{"pool": f"{FIRST} - {last}"}],
                "option-data": [{"name": "routers", "data": SERVER_ADDRESS}],
            }
        ],
        "loggers": [
            {
                "name": "kea-dhcp4",
                "severity": "INFO",
                "output_options": [{"output": str(files / "kea.log")}],
            }
        ],
    }
    config.write_text(json.dumps({"Dhcp4": dhcp4}))
    return ["env", f"KEA_PIDFILE_DIR={files}", f"KEA_LOCKFILE_DIR={files}", "kea-dhcp4", "-c", str(config)]


def _dhcpd(files: Path, last: IPv4Address) -> list[str]:
    config, leases = files / "dhcpd.conf", files / "dhcpd.leases"
    config.write_text(f"""
authoritative;
ping-check false;
default-lease-time {LEASE_SECONDS};
max-lease-time {LEASE_SECONDS};
subnet {SUBNET} netmask {NETMASK} {{ range {FIRST} {last}; option routers {SERVER_ADDRESS}; }}
""")
    leases.touch()
    return [
        "dhcpd", "-4", "-f", "-d", "-cf", str(config), "-lf", str(leases), "-pf", str(files / "pid"),
        INTERFACE,
    ]  # fmt: skip


PXEBOOT = DhcpServer(
    "pxeboot", sys.executable, "python3", _pxeboot, (sys.executable, "-m", "pip", "show", "pxeboot"), 20000
)
SERVERS = (
    PXEBOOT,
    DhcpServer("dnsmasq", "dnsmasq", "dnsmasq-base", _dnsmasq, ("dnsmasq", "--version"), 300),
    DhcpServer("Kea memfile", "kea-dhcp4", "kea-dhcp4-server", _kea, ("kea-dhcp4", "-v"), 9000),
    DhcpServer("ISC dhcpd", "dhcpd", "isc-dhcp-server", _dhcpd, ("dhcpd", "--version"), 9000),
)
