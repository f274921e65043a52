"""Options that several commands share, and what they mean."""

from pathlib import Path
from typing import Annotated

import typer

from pxeboot.config import DEFAULT_PATH, ImagesConfig, ServerConfig, load

ConfigPath = Annotated[
    Path | None, typer.Option("--config", "-c", help=f"Configuration file  [default: {DEFAULT_PATH}]")
]
StateDir = Annotated[
    Path | None, typer.Option("--state-dir", help="State directory, instead of the configuration's")
]
AsJson = Annotated[bool, typer.Option("--json", help="JSON for programs instead of a table")]


def state_dir_of(config: Path | None, state_dir: Path | None) -> Path:
    """The directory that a command works on: the one named, the configuration's, or the default.

    Without -c, a configuration file in the present directory counts. Absolute, since apt and mmdebstrap
    read a relative one from elsewhere. Raises PxebootError.
    """
    if state_dir is not None:
        return state_dir.absolute()
    if config is not None or DEFAULT_PATH.exists():
        return load(config or DEFAULT_PATH).server.state_dir.absolute()
    return ServerConfig().state_dir


def images_config(config: Path | None) -> ImagesConfig:
    """The `[images]` table, where there is a configuration. Raises PxebootError."""
    if config is not None or DEFAULT_PATH.exists():
        return load(config or DEFAULT_PATH).images
    return ImagesConfig()
