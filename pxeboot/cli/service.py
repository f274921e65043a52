"""`pxeboot service`: list, show, drain, undrain, clear."""

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from pxeboot.cli.client import ask
from pxeboot.cli.options import AsJson, ConfigPath, StateDir, state_dir_of
from pxeboot.preflight import only_server, server_runs

app = typer.Typer(no_args_is_help=True)

POLL_SECONDS = 1.0
PIPED_WIDTH = 200

ServiceName = Annotated[str, typer.Argument(metavar="SERVICE", help="The name of a [[service]]")]
NodeName = Annotated[str, typer.Argument(metavar="NODE", help="A MAC address, a UUID or a name")]
OfService = Annotated[str | None, typer.Option("--service", help="Of this service only")]


@app.command("list")
def list_services(config: ConfigPath = None, state_dir: StateDir = None, as_json: AsJson = False) -> None:
    """All services: who serves, connections, rates."""
    told = ask(state_dir_of(config, state_dir), "GET", "/services")
    if as_json:
        typer.echo(json.dumps(told, indent=2))
        return
    table = Table("service", "address", "method", "nodes", "active", "inactive", "new/s", "in", "out", "",
                  box=None, pad_edge=False)  # fmt: skip
    for item in told["services"]:
        traffic = item["traffic"]
        table.add_row(
            item["name"],
            endpoint(item),
            f"{item['forward']} {item['scheduler']}",
            f"{item['serving']} of {item['nodes']}",
            str(item["active"]),
            str(item["inactive"]),
            str(traffic["connection_rate"]),
            _rate(traffic["byte_rate_in"]),
            _rate(traffic["byte_rate_out"]),
            _state(item),
            style=None if item["up"] else "red",
        )
    console = _console()
    console.print(table if told["services"] else "the configuration has no [[service]]")
    for item in told["services"]:
        if item["trouble"]:
            console.print(f"{item['name']}: {item['trouble']}", style="red", markup=False, soft_wrap=True)
    if told["cleared"]:
        console.print("cleared: nothing is in the kernel until the configuration is read again (SIGHUP)")


@app.command()
def show(
    service: ServiceName, config: ConfigPath = None, state_dir: StateDir = None, as_json: AsJson = False
) -> None:
    """A service and its servers: weights, connections, rates, and what their checks said."""
    told = ask(state_dir_of(config, state_dir), "GET", f"/services/{service}")
    if as_json:
        typer.echo(json.dumps(told, indent=2))
        return
    console = _console()
    console.print(summary(told), markup=False)
    table = Table("node", "address", "state", "weight", "active", "inactive", "new/s", "in", "out", "check",
                  box=None, pad_edge=False)  # fmt: skip
    for item in told["servers"]:
        traffic = item["traffic"]
        table.add_row(
            item["node"],
            f"{item['address'] or '-'}",
            item["state"] + _leaves(item["leaves"]),
            str(item["weight"])
            if item["weight"] == item["full_weight"]
            else f"{item['weight']} of {item['full_weight']}",
            str(item["active"]),
            str(item["inactive"]),
            str(traffic["connection_rate"]),
            _rate(traffic["byte_rate_in"]),
            _rate(traffic["byte_rate_out"]),
            item["last"]["text"] if item["last"] else "-",
        )
    console.print(table)
    for item in told["servers"]:
        for turn in item["turns"]:
            at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(turn["at"]))
            word = "passes" if turn["good"] else "fails"
            console.print(f"{at}  {item['node']} {word}: {turn['text']}", markup=False)


@app.command()
def drain(
    node: NodeName,
    service: OfService = None,
    wait: Annotated[bool, typer.Option("--wait", help="Until it has no connections left")] = False,
    config: ConfigPath = None,
    state_dir: StateDir = None,
    as_json: AsJson = False,
) -> None:
    """Give a node no new connections; it finishes those it has, and stays drained until `undrain`."""
    place = state_dir_of(config, state_dir)
    told = ask(place, "POST", f"/nodes/{node}/drain", {"service": service})
    while True:
        _tell(told, as_json=as_json)
        mine = [item for item in told["services"] if service in (None, item["service"])]
        if not wait or all(item["state"] not in ("draining", "leaving") for item in mine):
            return
        time.sleep(POLL_SECONDS)
        told = ask(place, "GET", f"/nodes/{node}/services")


@app.command()
def undrain(
    node: NodeName,
    service: OfService = None,
    config: ConfigPath = None,
    state_dir: StateDir = None,
    as_json: AsJson = False,
) -> None:
    """Put a drained node into service again."""
    told = ask(state_dir_of(config, state_dir), "POST", f"/nodes/{node}/undrain", {"service": service})
    _tell(told, as_json=as_json)


@app.command()
def clear(config: ConfigPath = None, state_dir: StateDir = None) -> None:
    """Take every service that pxeboot has made out of the kernel, with its address; connections break.

    A running server leaves it so until it is restarted or its configuration is read again. Without this,
    services stay in the kernel when the server ends, so that it can be restarted unnoticed.
    """
    place = state_dir_of(config, state_dir)
    if server_runs(place):
        gone = ask(place, "POST", "/services/clear")["services"]
    else:
        with only_server(place):
            gone = asyncio.run(_take_down(place))
    for name in gone:
        typer.echo(f"service {name} is out of the kernel")
    if not gone:
        typer.echo("nothing of ours was in the kernel")


async def _take_down(state_dir: Path) -> list[str]:
    from pxeboot.balancer import director, ipvs, loop  # noqa: PLC0415  for this command only
    from pxeboot.inventory.store import open_store  # noqa: PLC0415

    store = open_store(state_dir)
    try:
        made = await store.made()
        if not made:
            return []
        work = await asyncio.to_thread(lambda: loop.take_down(ipvs.Kernel(), director.Director(), made))
        for key in made:
            await store.forget_made(key)
        return [str(key) for key in work]
    finally:
        await store.close()


def summary(item: dict[str, Any]) -> str:
    """A service in one line."""
    state = f"{_state(item)}: {item['trouble']}" if item["trouble"] else _state(item) or "up"
    return (
        f"{item['name']}: {endpoint(item)} {item['forward']} {item['scheduler']}, {state}, "
        f"{item['serving']} of {item['nodes']} nodes, {item['active']} active connections"
    )


def endpoint(item: dict[str, Any]) -> str:
    """Where a service is reached."""
    if item["firewall_mark"] is not None:
        return f"{item['vip']} mark {item['firewall_mark']}"
    host = f"[{item['vip']}]" if ":" in item["vip"] else item["vip"]
    return f"{host}:{item['port']}/{item['protocol']}"


def _console() -> Console:
    """Wide where nobody looks: a table that is piped is not cut."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else PIPED_WIDTH)


def _state(item: dict[str, Any]) -> str:
    if item["trouble"]:
        return "not in the kernel"
    if item["held"]:
        return "all checks fail at once, nodes are kept"
    return "" if item["up"] else "no quorum"


def _tell(told: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(told))
        return
    for item in told["services"]:
        left = f", {item['left']} connections left" if item["state"] in ("draining", "leaving") else ""
        typer.echo(f"{told['node']}: {item['state']} in {item['service']}{left}{_leaves(item['leaves'])}")


def _leaves(moment: float | None) -> str:
    return "" if moment is None else f" (at most {max(0.0, moment - time.time()):.0f} s)"


def _rate(octets: int) -> str:
    """Bits per second, from the kernel's bytes."""
    bits = octets * 8
    for size, unit in ((1e9, "Gbit/s"), (1e6, "Mbit/s"), (1e3, "kbit/s")):
        if bits >= size:
            return f"{bits / size:.1f} {unit}"
    return f"{bits} bit/s"
