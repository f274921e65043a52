"""The command `pxeboot`: its nouns brought together, and the one place where errors are printed."""

import sys

import typer
from rich.console import Console

from pxeboot.cli import image, kernel, lab, lease, node, probe, server, service, tls
from pxeboot.errors import PxebootError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Network boot in one process: bare machines in, working servers out.",
)
app.command()(server.serve)
app.command()(server.check)
app.command()(server.status)
app.command()(probe.probe)
app.add_typer(node.app, name="node", help="Machines: what they are and where their boot is.")
app.add_typer(lease.app, name="lease", help="Addresses: who has which, and which are put aside.")
app.add_typer(service.app, name="service", help="Virtual services and the nodes behind them.")
app.add_typer(image.app, name="image", help="Root images: build them, look at them.")
app.add_typer(tls.app, name="tls", help="Certificates for HTTPS: an own authority for the nodes.")
app.add_typer(kernel.app, name="kernel", help="Kernels of our own, small and without modules.")
app.add_typer(
    lab.app, name="lab", help="Virtual machines that boot from this very code, on a private network."
)


def main() -> None:
    """Exit 0 done, 1 refused or failed with message and hint on stderr, 2 wrong usage."""
    try:
        app()
    except PxebootError as error:
        console = Console(stderr=True, soft_wrap=True, highlight=False)
        console.print(f"error: {error}", style="red", markup=False)
        if error.hint:
            console.print(f"hint: {error.hint}", markup=False)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
