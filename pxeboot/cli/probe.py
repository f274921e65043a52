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
    rows = [{**asdict(server), "kind": server.kind, "whose": _whose(server, asked, own)} for server in found]
    if as_json:
        typer.echo(json.dumps({"servers": rows}, indent=2, default=str))
        return
    console = Console(highlight=False)
    if rows:
        console.print(_table(rows))
    boots = [line for server in found if (line := _boots(server))]
    for line in (*boots, *remarks(found, [link.name for link in asked], own, seconds)):
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


def _whose(server: Server, asked: Sequence[Link], own: dict[str, IPv4Address]) -> str:
    """ "ours": of the pxeboot asked through its socket; "this box": of another program here; or "another"."""
    link = next(link for link in asked if link.name == server.interface)
    if server.mac != link.mac:
        return "another"
    return "ours" if own.get(server.interface) == server.server else "this box"


def _table(rows: Sequence[dict[str, Any]]) -> Table:
    """One row per server; where a relay or a router stands before it, who that is."""
    titles = {
        "interface": "interface",
        "server": "server",
        "kind": "kind",
        "offered": "offers",
        "whose": "whose",
    }
    titles["mac"] = "MAC"
    if any(row["address"] != row["server"] for row in rows):
        titles["address"] = "sent from"
    table = Table(*titles.values(), box=None, pad_edge=False)
    for row in rows:
        table.add_row(*(str(row[key] or "-") for key in titles))
    return table


def _boots(server: Server) -> str:
    told = "; ".join(f"{name}: {boot}" for name, boot in server.boots.items())
    return f"{server.interface}: {server.server} boots {told}" if told else ""
