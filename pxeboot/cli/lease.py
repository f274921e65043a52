"""`pxeboot lease`: list, free."""

import json
import time
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from pxeboot.cli.client import ask
from pxeboot.cli.options import AsJson, ConfigPath, StateDir, state_dir_of

app = typer.Typer(no_args_is_help=True)


@app.command("list")
def list_leases(config: ConfigPath = None, state_dir: StateDir = None, as_json: AsJson = False) -> None:
    """Every address that was ever given, and whose it is or was."""
    told = ask(state_dir_of(config, state_dir), "GET", "/leases")
    if as_json:
        typer.echo(json.dumps(told, indent=2))
        return
    table = Table("address", "mac", "node", "state", "until", box=None, pad_edge=False)
    for lease in told["leases"]:
        table.add_row(lease["address"], lease["mac"], lease["name"] or "-", lease["state"], _until(lease))
    Console().print(table if told["leases"] else "no leases yet")


@app.command()
def free(
    address: Annotated[str, typer.Argument(metavar="ADDRESS", help="An address that is put aside")],
    config: ConfigPath = None,
    state_dir: StateDir = None,
) -> None:
    """Give an address again that was put aside because somebody had it without a lease.

    It is probed before it is offered: if somebody still answers for it, it is put aside once more.
    """
    ask(state_dir_of(config, state_dir), "DELETE", f"/leases/{address}")
    typer.echo(f"{address} is given again")


def _until(lease: dict[str, Any]) -> str:
    """When it ends, or ended."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(lease["expires"]))
