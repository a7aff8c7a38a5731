"""Where a command's configuration and its ``Agent`` come from.

The command line delivers on its own thread ("manual") and starts none for it. A command that only looks must not change
anything, so it does not act on a refused consent, which would purge.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any, NamedTuple, Optional

from ..errors import ConfigError
from .arguments import UsageError, can_demo, program

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..client import Agent
    from ..config import Config
    from ..values import Outcome
    from .arguments import Parser

EXAMPLE = """\
{
  "vendor": "Acme",
  "product_name": "Studio",
  "product_id": "42",
  "product_version": "5.2.5",
  "usage_consent": null,
  "endpoints": [
    {
      "kind": "getkeymanager",
      "base_url": "https://keys.acme.example",
      "api_key": "YOUR-API-KEY",
      "keys": [{"name": "global", "pem_file": "global.pem"}]
    },
    {"kind": "reo", "api_key": "YOUR-API-KEY", "domain": "acme.example"}
  ]
}"""


class Settings(NamedTuple):
    """A configuration, and the licence to report with."""

    config: Config
    license_key: str
    activation_identifier: str


def add_licence(parser: Parser) -> None:
    """The options that give a licence."""
    parser.option(
        "--license-key",
        metavar="KEY",
        help="report with this licence key; other users of the machine can read it here, so prefer "
        '"license_key" in the configuration file',
    )
    parser.option("--activation-identifier", metavar="ID", help="the activation that goes with it")


def read(args: argparse.Namespace, given: Optional[Config]) -> Settings:
    """The settings from ``--config``, else the product's own; raises ``UsageError``, ``ConfigError``."""
    if args.config is not None:
        from .config_file import load_with_licence

        try:
            found = Settings(*load_with_licence(args.config))
        except ConfigError as error:
            if str(error).startswith(args.config):
                raise
            raise ConfigError("%s: %s" % (args.config, error), error.field) from None
    elif given is not None:
        found = Settings(given, "", "")
    else:
        raise UsageError(
            "this command needs --config FILE",
            "Such a file is, for example (pem_file lies beside it; usage_consent: true,",
            'false, or null for not asked yet, which TOML writes "not-asked"):',
            EXAMPLE,
            *(["%s demo needs none." % program()] if can_demo() else []),
        )
    key = getattr(args, "license_key", None)
    activation = getattr(args, "activation_identifier", None)
    if key is not None or activation is not None:
        found = Settings(found.config, key or found.license_key, activation or "")
    return found


def open_agent(
    args: argparse.Namespace,
    given: Optional[Config],
    *,
    looking: bool,
    on_outcome: Optional[Callable[[Outcome], None]] = None,
) -> Agent:
    """An agent that starts no thread; with ``looking`` one that leaves refused usage where it is."""
    from ..client import Agent

    config, key, activation = read(args, given)
    changes: dict[str, Any] = {"deliver": "manual"}
    if looking and config.usage_consent is False:
        changes["usage_consent"] = None
    return Agent(config.replace(**changes), key or None, activation or None, on_outcome)


def shown_consent(config: Config) -> Any:
    """The consent of a configuration, JSON-ready; an agent that only looks may have been given another."""
    return "callable" if callable(config.usage_consent) else config.usage_consent
