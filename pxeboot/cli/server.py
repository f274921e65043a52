"""`pxeboot serve`, `check` and `status`."""

import asyncio
import json
import logging
import sys
import time
from typing import Any

import typer
from rich.console import Console
from rich.table import Table

from pxeboot import app as application
from pxeboot.cli import service
from pxeboot.cli.client import ask
from pxeboot.cli.options import AsJson, ConfigPath, StateDir, state_dir_of
from pxeboot.config import DEFAULT_PATH, load
from pxeboot.preflight import look

LOG_FORMAT = "%(asctime)s %(levelname)-7s %(message)s"


def serve(config: ConfigPath = None) -> None:
    """Run the server in the foreground. SIGHUP rereads the file, SIGTERM ends it."""
    logging.basicConfig(level=logging.INFO, format=LOG_FORMAT, stream=sys.stderr)
    asyncio.run(application.serve(config or DEFAULT_PATH))


def check(config: ConfigPath = None) -> None:
    """Look at everything that can be wrong before the server starts: one line each."""
    path = config or DEFAULT_PATH
    console = Console(soft_wrap=True, highlight=False)
    settings = load(path)
    console.print(f"ok    configuration: {path}", markup=False)
    failed = 0
    for finding in look(settings):
        if finding.error is None:
            word = "note" if finding.lacks else "ok"
            console.print(f"{word:5} {finding.subject}: {finding.seen}", markup=False)
            continue
        failed += 1
        console.print(f"FAIL  {finding.subject}: {finding.error}", markup=False)
        console.print(f"      hint: {finding.error.hint}", markup=False)
    if failed:
        raise typer.Exit(1)


def status(config: ConfigPath = None, state_dir: StateDir = None, as_json: AsJson = False) -> None:
    """Networks, leases and nodes by stage, of the running server."""
    told = ask(state_dir_of(config, state_dir), "GET", "/status")
    if as_json:
        typer.echo(json.dumps(told, indent=2))
        return
    console = Console()
    networks = Table("network", "interface", "our address", "leases", box=None, pad_edge=False)
    for item in told["networks"]:
        used = f"{item['leases_active']} (pool of {item['pool_size']})"
        networks.add_row(item["subnet"], item["interface"] or "(relays)", item["address"] or "-", used)
    console.print(networks)
    for item in told["networks"]:
        if item["requests_dropped"]:
            console.print(
                f"{item['interface']}: {item['requests_dropped']} DHCP requests dropped since the start: "
                "more came than can be answered; who was dropped asks again",
                style="red",
                soft_wrap=True,
            )
    counts = told["nodes_by_stage"]
    console.print()
    console.print(
        "nodes: " + (", ".join(f"{count} {stage}" for stage, count in counts.items()) or "none yet")
    )
    for item in told["services"]:
        style = None if item["up"] else "red"
        console.print(f"service {service.summary(item)}", style=style, markup=False, soft_wrap=True)
    for node in told["failures"]:
        console.print(f"  {node['name']} ({node['mac']}) {node['stage']}: {node['failure']}", style="red")
    for lease in told["quarantined"]:
        console.print(_quarantine(lease), style="red", soft_wrap=True)


def _quarantine(lease: dict[str, Any]) -> str:
    """One address that cannot be given, and what the operator does about it."""
    minutes = max(0, round((lease["expires"] - time.time()) / 60))
    again = f"`pxeboot lease free {lease['address']}` ends this"
    if lease["state"] == "conflict":
        return (
            f"{lease['address']} is in use by {lease['mac']} without a lease: not given for {minutes} min; "
            f"take it off that machine, or out of the pool; {again}"
        )
    return (
        f"{lease['address']} was declined by {lease['mac']}, for somebody there has it: not given for "
        f"{minutes} min; find who, or take it out of the pool; {again}"
    )
