"""`pxeboot tls`: an own certificate authority for the nodes."""

from ipaddress import IPv4Address

import typer

from pxeboot.cli.options import ConfigPath
from pxeboot.config import DEFAULT_PATH, Config, load
from pxeboot.preflight import resolve_network
from pxeboot.web import tls

app = typer.Typer(no_args_is_help=True)


@app.command()
def init(config: ConfigPath = None) -> None:
    """Make an authority and a server certificate for our addresses in the networks; never over another."""
    settings = load(config or DEFAULT_PATH)
    folder = settings.server.state_dir / tls.FOLDER
    tls.init(folder, _addresses(settings))
    typer.echo(f"made an authority and a server certificate in {folder}")
    if settings.https is None:
        typer.echo("add a table [https] to the configuration and restart pxeboot to use them")


@app.command()
def renew(config: ConfigPath = None) -> None:
    """Issue a new server certificate by the same authority: nodes that run go on."""
    settings = load(config or DEFAULT_PATH)
    folder = settings.server.state_dir / tls.FOLDER
    tls.renew(folder, _addresses(settings))
    typer.echo(f"issued a new server certificate in {folder}; SIGHUP has a running server use it")


def _addresses(settings: Config) -> list[IPv4Address]:
    """Our own in the networks. Raises PxebootError where one is missing."""
    networks = [resolve_network(item) for item in settings.network]
    return [network.address for network in networks if network.address is not None]
