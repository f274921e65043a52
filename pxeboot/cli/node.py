"""`pxeboot node`: list, show, set, forget, import, reboot, watch."""

import json
import stat
import sys
import time
from base64 import b64encode
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from pxeboot.cli import node_file
from pxeboot.cli.client import Refused, ask, connect, run
from pxeboot.cli.node_file import KINDS
from pxeboot.cli.options import AsJson, ConfigPath, StateDir, state_dir_of
from pxeboot.errors import PxebootError
from pxeboot.inventory.node import is_unseen
from pxeboot.mac import Mac
from pxeboot.web.views import EntryFault

app = typer.Typer(no_args_is_help=True)

NodeName = Annotated[str, typer.Argument(metavar="NODE", help="A MAC address, a UUID or a name")]


@app.command("list")
def list_nodes(config: ConfigPath = None, state_dir: StateDir = None, as_json: AsJson = False) -> None:
    """All nodes and where their boots are."""
    told = ask(state_dir_of(config, state_dir), "GET", "/nodes")
    if as_json:
        typer.echo(json.dumps(told, indent=2))
        return
    table = Table("node", "mac", "group", "address", "stage", "since", "", box=None, pad_edge=False)
    for node in told["nodes"]:
        table.add_row(
            node["name"],
            "(not seen)" if _is_unseen(node) else node["mac"],
            node["group"] or "-",
            node["address"] or (f"({node['reserved']})" if node["reserved"] else "-"),
            node["stage"] or ("discovered" if node["discovered"] else "-"),
            _ago(node["stage_since"]),
            describe(node),
        )
    Console().print(
        table if told["nodes"] else "no nodes yet: switch a machine on, or `pxeboot node set MAC`"
    )


@app.command()
def show(
    node: NodeName, config: ConfigPath = None, state_dir: StateDir = None, as_json: AsJson = False
) -> None:
    """A node and its last boots, stage by stage."""
    told = ask(state_dir_of(config, state_dir), "GET", f"/nodes/{node}")
    if as_json:
        typer.echo(json.dumps(told, indent=2))
        return
    console = Console(highlight=False, soft_wrap=True)
    for key in ("name", "mac", "uuid", "group", "reserved", "address", "image"):
        console.print(f"{key:9} {told[key] or '-'}", markup=False)
    for option, value in told["options"].items():
        console.print(f"{'option':9} {option} = {json.dumps(value)}", markup=False)
    for word, value in told["vars"].items():
        console.print(f"{'var':9} {word} = {value}", markup=False)
    for path, size in told["files"].items():
        console.print(f"{'file':9} {path} ({size} bytes)", markup=False)
    if told["ssh_host_key"]:
        console.print(f"{'host key':9} {told['ssh_host_key']}", markup=False)
    for boot in told["boots"]:
        _print_boot(console, boot)


@app.command("set")
def set_node(
    node: NodeName,
    name: Annotated[str | None, typer.Option(help="A name for it")] = None,
    group: Annotated[str | None, typer.Option(help='Its group; "" for what the patterns say')] = None,
    address: Annotated[str | None, typer.Option(help='Reserve an address; "" for one of the pool')] = None,
    uuid: Annotated[
        str | None,
        typer.Option(help='Know it by this UUID, whichever network card asks; "" by its MAC address'),
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="A DHCP option, by name or number; NAME= takes it back"),
    ] = None,
    var: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=TEXT", help="A word for templates; NAME= takes it back"),
    ] = None,
    file: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATH=LOCAL",
            help="A file laid over its root, mode as here; PATH= takes it back",
        ),
    ] = None,
    template: Annotated[
        list[str] | None,
        typer.Option(metavar="PATH=LOCAL", help="The same, with $name, $address and so on filled in"),
    ] = None,
    config: ConfigPath = None,
    state_dir: StateDir = None,
) -> None:
    """Name a node, put it into a group, reserve its address, set DHCP options: from its next packet on.

    Words and files hold from its next boot on.

    A MAC address or UUID that has not been seen yet is announced by this.
    """
    wishes: dict[str, str | None] = {"name": name, "group": group, "address": address, "uuid": uuid}
    patch: dict[str, Any] = {key: value or None for key, value in wishes.items() if value is not None}
    if option:
        patch["options"] = dict(_option(text) for text in option)
    if var:
        patch["vars"] = {name: text or None for name, text in (_pair("--var", item) for item in var)}
    files = [(item, False) for item in file or ()] + [(item, True) for item in template or ()]
    if files:
        patch["files"] = dict(_file(text, filled) for text, filled in files)
    told = ask(state_dir_of(config, state_dir), "PATCH", f"/nodes/{node}", patch)
    machine = told["uuid"] if _is_unseen(told) else told["mac"]
    address_told = told["reserved"] or "by pool"
    typer.echo(f"{machine}: {told['name']}, group {told['group']}, address {address_told}")


def _option(text: str) -> tuple[str, Any]:
    """`NAME=VALUE`: a text, numbers and lists with commas too; a table of sub-options as JSON."""
    name, equals, value = text.partition("=")
    if not equals:
        raise PxebootError(f"--option {text!r} has no =", "write NAME=VALUE, like ntp-servers=10.0.0.1")
    if value.startswith("{"):
        try:
            return name.strip(), json.loads(value)
        except ValueError as error:
            raise PxebootError(f"--option {text!r}: {error}", 'write {"6": "hex:08"}') from None
    return name.strip(), value or None


def _pair(option: str, text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise PxebootError(f"{option} {text!r} has no =", "write the name, =, and the value")
    return name.strip(), value


def _file(text: str, template: bool) -> tuple[str, dict[str, Any] | None]:
    """`PATH=LOCAL`, as the API takes it."""
    path, name = _pair("--template" if template else "--file", text)
    if not name:
        return path, None
    local = Path(name)
    try:
        data, mode = local.read_bytes(), stat.S_IMODE(local.stat().st_mode)
    except OSError as error:
        raise PxebootError(f"{local}: {error.strerror}", "name a readable file") from error
    return path, {"data": b64encode(data).decode(), "mode": mode, "template": template}


def _is_unseen(node: dict[str, Any]) -> bool:
    """Whether it was announced by its UUID and has not come yet, so that its MAC address is not known."""
    return is_unseen(Mac(node["mac"]))


@app.command()
def forget(node: NodeName, config: ConfigPath = None, state_dir: StateDir = None) -> None:
    """Forget a node, its settings and its boots. It may come back as a new one."""
    ask(state_dir_of(config, state_dir), "DELETE", f"/nodes/{node}")
    typer.echo(f"{node} is forgotten")


@app.command("import")
def import_nodes(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Ends in .csv, .json or .toml; - for stdin")],
    kind: Annotated[
        str | None, typer.Option("--format", help=f"{', '.join(KINDS)}; needed where the name does not tell")
    ] = None,
    config: ConfigPath = None,
    state_dir: StateDir = None,
) -> None:
    """Set all nodes that a file lists, or none where one of them cannot be.

    A node has mac or uuid, and name, group, address and options as wanted; what is not said stays as it is,
    and so do nodes that are not listed. In CSV the first row names the columns, and an option is a column
    like option.ntp-servers.
    """
    kind = kind or file.suffix.removeprefix(".").lower()
    if kind not in KINDS:
        raise PxebootError(f"{file}: its name does not tell what it is", f"--format {'|'.join(KINDS)}")
    name = "stdin" if file == Path("-") else str(file)
    try:
        rows = node_file.read(_text(file), kind)
    except PxebootError as error:
        raise PxebootError(f"{name}: {error}", error.hint) from error
    nodes = [entry.model_dump(mode="json", exclude_unset=True) for entry in node_file.entries(rows, name)]
    try:
        told = ask(state_dir_of(config, state_dir), "POST", "/nodes", {"nodes": nodes})
    except Refused as error:
        faults = [EntryFault.model_validate(fault) for fault in error.told.get("faults", [])]
        raise node_file.refusal(rows, faults, name) if faults else error from None
    typer.echo(f"{told['added']} added, {told['changed']} changed, {told['unchanged']} as before")


def _text(file: Path) -> str:
    """Raises PxebootError."""
    try:
        data = sys.stdin.buffer.read() if file == Path("-") else file.read_bytes()
        return data.decode()
    except OSError as error:
        raise PxebootError(str(error.strerror), "name a file that can be read, or -") from error
    except UnicodeDecodeError as error:
        raise PxebootError(str(error), "write it in UTF-8") from error


@app.command()
def reboot(node: NodeName, config: ConfigPath = None, state_dir: StateDir = None) -> None:
    """Have the node's agent restart it."""
    ask(state_dir_of(config, state_dir), "POST", f"/nodes/{node}/command", {"command": "reboot"})
    typer.echo(f"{node}: its agent has been told to reboot")


@app.command()
def watch(
    node: Annotated[str | None, typer.Argument(metavar="[NODE]", help="One node only")] = None,
    config: ConfigPath = None,
    state_dir: StateDir = None,
    as_json: AsJson = False,
) -> None:
    """Print every change of a boot as it happens, until Ctrl-C."""
    run(_watch(node, state_dir_of(config, state_dir), as_json))


async def _watch(only: str | None, state_dir: Path, as_json: bool) -> None:
    shown: dict[str, str] = {}
    async with connect(state_dir) as client:
        _print_changes((await client.ask("GET", "/nodes"))["nodes"], only, shown, as_json)
        async for kind, about in client.events():
            if kind in ("boot", "node"):
                nodes = (await client.ask("GET", "/nodes"))["nodes"]
                _print_changes([item for item in nodes if item["mac"] == about["mac"]], only, shown, as_json)


def _print_changes(
    nodes: list[dict[str, Any]], only: str | None, shown: dict[str, str], as_json: bool
) -> None:
    for node in nodes:
        if only not in (None, node["name"], node["mac"]):
            continue
        line = f"{node['mac']}  {node['name']}  {node['stage'] or '-'}  {describe(node)}".rstrip()
        if shown.get(node["mac"]) != line:
            shown[node["mac"]] = line
            typer.echo(json.dumps(node) if as_json else f"{time.strftime('%H:%M:%S')}  {line}")


def describe(node: dict[str, Any]) -> str:
    """What is to be said of a node beside its stage: why it failed, or how far it is."""
    if node["failure"]:
        return str(node["failure"])
    if node["total"]:
        return f"{node['done'] / 1e6:.1f} of {node['total'] / 1e6:.1f} MB"
    return str(node["detail"])


def _print_boot(console: Console, boot: dict[str, Any]) -> None:
    started = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(boot["started"]))
    console.print(f"\nboot {boot['id']} of {started}: {boot['stage']}", style="bold", markup=False)
    for key in ("firmware", "loader", "image", "address", "failure"):
        if boot[key]:
            console.print(f"  {key:9} {boot[key]}", markup=False)
    if boot["retries"]:
        console.print(f"  {'retries':9} {boot['retries']}")
    for stage, at in boot["reached"].items():
        console.print(f"  {at - boot['started']:8.1f} s  {stage}")
    for what, size in boot["sent"].items():
        console.print(f"  {size / 1e6:8.1f} MB by {what}", markup=False)


def _ago(moment: float | None) -> str:
    if moment is None:
        return "-"
    seconds = max(0, time.time() - moment)
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
