"""Functions of the public interface that are no part of an agent's life: erase, the command line, a helper process."""

from __future__ import annotations

from .errors import ConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, Optional

    from .config import Config


def erase(config: Config) -> list[str]:
    """Remove everything that this configuration's agents keep on disk; the paths that remain.

    Removes files by known name only, follows no link, creates nothing.
    """
    from . import flushing
    from .config import Config

    if not isinstance(config, Config):
        raise ConfigError("config: got %s, allowed is a Config" % type(config).__name__, "config")
    return flushing.erase(config)


def main(argv: Optional[Sequence[str]] = None, config: Optional[Config] = None) -> int:
    """The whole command line, for a product that is frozen or brings its configuration; the exit status."""
    try:
        from .cli import main as run  # type: ignore[import-not-found, unused-ignore]
    except ImportError:  # not only if missing: a folder that was emptied is a package to Python
        raise ConfigError("this copy has no command line: its folder cli was left out") from None
    status: int = run(argv, config=config)
    return status


def deliver_detached(told: Optional[dict[str, Any]] = None) -> int:
    """What a ``detached_command`` calls first of all: deliver for the product that started it; the exit status.

    Reads the configuration from the standard input, parts from its starter, and ends within about half a minute.
    ``told``: what was read already.
    """
    import json

    from . import detached
    from .client import Agent

    try:
        if told is None:
            # A program without a console has no sys.stdin.
            with open(0, "rb", closefd=False) as pipe:
                told = json.load(pipe)
        config, environ = detached.read_config(told["config"]), told["environ"]
    except Exception:
        return 2
    detached.part()
    with Agent(config, environ=environ) as telemetry:
        detached.deliver(telemetry._engine.courier)
    return 0
