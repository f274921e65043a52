"""`pxeboot probe`: who answers DHCP on this box's interfaces."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from ipaddress import IPv4Address
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from pxeboot import links
from pxeboot.cli.client import ask as ask_server
from pxeboot.cli.options import AsJson, ConfigPath, StateDir, state_dir_of
from pxeboot.diagnose.servers import Server, remarks
from pxeboot.errors import PxebootError
from pxeboot.links import Link

Interface = Annotated[
    str | None, typer.Option("--interface", "-i", help="Ask there only, not on every Ethernet interface")
]
Seconds = Annotated[
    float,
    # dnsmasq pings an address for three seconds before it offers it.
    typer.Option("--seconds", min=1, max=60, help="How long to listen; some servers take three"),
]


def probe(
    interface: Interface = None,
    seconds: Seconds = 5,
    config: ConfigPath = None,
    state_dir: StateDir = None,
    as_json: AsJson = False,
) -> None:
    """List every DHCP and ProxyDHCP server that answers plain clients, BIOS, UEFI or HTTP Boot."""
    from pxeboot.diagnose.probe import ask  # noqa: PLC0415  scapy takes half a second, here only

    asked = _links(interface)
    found = ask([link.name for link in asked], seconds)
    own = _own_server(state_dir_of(config, state_dir))
    rows = [{**asdict(server), "kind": server.kind, "who": _who(server, asked, own)} for server in found]
    if as_json:
        typer.echo(json.dumps({"servers": rows}, indent=2, default=str))
        return
    console = Console(highlight=False)
    if rows:
        console.print(_table(rows))
    for line in remarks(found, [link.name for link in asked], own, seconds):
        console.print(line, soft_wrap=True, markup=False)


def _links(interface: str | None) -> list[Link]:
    """The interfaces to ask on. Raises PxebootError."""
    present = links.ethernet()
    if interface is None:
        if not present:
            raise PxebootError("no Ethernet interface of this box is up", "bring one up: ip link set eth1 up")
        return present
    links.addresses(interface)  # it names what there is where this one is missing or down
    named = [link for link in present if link.name == interface]
    if not named:
        raise PxebootError(
            f"interface {interface!r} carries no Ethernet of its own",
            "name the bridge or bond that it is part of",
        )
    return named


def _own_server(directory: Path) -> dict[str, IPv4Address]:
    """Where the pxeboot of this box answers DHCP, by interface; nowhere where none runs."""
    try:
        told = ask_server(directory, "GET", "/status")
    except PxebootError:
        return {}
    served = [item for item in told["networks"] if item["interface"] and item["address"]]
    return {item["interface"]: IPv4Address(item["address"]) for item in served}


def _who(server: Server, asked: Sequence[Link], own: dict[str, IPv4Address]) -> str:
    link = next(link for link in asked if link.name == server.interface)
    if server.mac != link.mac:
        return "another machine"
    if own.get(server.interface) == server.server:
        return "this box's pxeboot"
    return "this box"


def _table(rows: Sequence[dict[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False)
    for title in ("interface", "server", "kind", "offers", "who", "MAC", "sent from"):
        table.add_column(title, no_wrap=True)
    table.add_column("boot")
    for row in rows:
        boots = "\n".join(f"{name}: {boot}" for name, boot in row["boots"].items())
        cells = ("interface", "server", "kind", "offered", "who", "mac", "address")
        table.add_row(*(str(row[cell] or "-") for cell in cells), boots or "-")
    return table
