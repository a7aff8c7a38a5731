"""Reading the command line: options that every command has, and mistakes answered with what was probably meant.

A mistake raises ``UsageError`` instead of ending the process, for a product may call us. The program's name is
whatever it was started as.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import textwrap
from difflib import get_close_matches
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, NoReturn, Optional

from .output import write

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from ..config import Config
    from .output import Output

    Run = Callable[[argparse.Namespace, Output, Optional[Config]], int]


class UsageError(Exception):
    """What was typed cannot be meant: a message, and lines that say what to do about it."""

    def __str__(self) -> str:
        return str(self.args[0])

    @property
    def more(self) -> tuple[str, ...]:
        """The lines after the message."""
        return self.args[1:]


# The words that only a product without a configuration of its own needs.
EXAMPLE_CONFIG = " --config product.json"
_CONFIG = (
    'the configuration: JSON, or TOML from Python 3.11 on, where the text "not-asked" stands for '
    "the null of usage_consent"
)
_NO_CONFIG = "accepted as everywhere, and not read: this command needs none"
_OTHER_CONFIG = "a configuration in place of the product's own: JSON, or TOML from Python 3.11 on"


_switch: list[str] = []  # what a product was started with before the words that it handed on


def handed_on(words: Sequence[str]) -> None:
    """Note how a product came to call us: ``product --telemetry id`` hands on ``id``."""
    given, last = sys.argv[1:], len(sys.argv) - 1 - len(words)
    _switch[:] = given[:last] if 0 < last and given[last:] == list(words) else []


def program() -> str:
    """How this command line was started."""
    return " ".join([_program(), *_switch])


def _program() -> str:
    main = getattr(sys.modules.get("__main__"), "__spec__", None)
    if main is not None and main.name.endswith(".__main__"):
        name = os.path.basename(sys.executable or "python").removesuffix(".exe")
        return "%s -m %s" % (name, main.parent)
    started = os.path.basename(sys.argv[0]) if sys.argv else ""
    return started if started and not started.startswith("-") else package()


def can_demo() -> bool:
    """Whether ``demo`` can be run here: a copy lacks it, and a frozen program has no second Python."""
    return not getattr(sys, "frozen", False) and find_spec(".demo", __package__) is not None


def package() -> str:
    """The name that this copy of the package goes by."""
    return str(__package__).rpartition(".")[0]


class Parser(argparse.ArgumentParser):
    """A parser of one command, or of a group of them.

    ``own``: a product brings its configuration, so the examples need not. ``configurable``: whether the command
    has any use for one. ``takes_anything`` is for one that only says why it cannot be run.
    """

    takes_anything = False

    def __init__(self, *, own: bool = False, configurable: bool = True, **given: Any) -> None:
        super().__init__(
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            argument_default=argparse.SUPPRESS,
            **given,
        )
        self.own, self.configurable = own, configurable
        self.group: Optional[argparse._SubParsersAction[Parser]] = None
        self._hidden: set[str] = set()
        common = self.add_argument_group("for every command")
        common.add_argument(
            "--json", action="store_true", dest="as_json", help="the result as JSON on stdout"
        )
        about = (_OTHER_CONFIG if own else _CONFIG) if configurable else _NO_CONFIG
        common.add_argument("--config", metavar="FILE", help=about)
        # A number too, not only where it is written without an exponent.
        self._negative_number_matcher = re.compile(r"-(\d+\.?\d*|\.\d+)(e[-+]?\d+)?$|-inf$", re.I)

    def command(
        self,
        name: str,
        summary: str,
        examples: str,
        run: Optional[Run] = None,
        *,
        configurable: bool = True,
        hidden: bool = False,
    ) -> Parser:
        """A command below this one; ``examples`` are command lines without the program's name.

        One that is ``hidden`` can be given, but no help and no suggestion names it.
        """
        if self.group is None:
            self.group = self.add_subparsers(
                metavar="COMMAND", title="commands", parser_class=Parser
            )
        prefix = self.prog + " "
        if self.own:
            examples = examples.replace(EXAMPLE_CONFIG, "")
        lines = "".join("\n  " + prefix + line for line in examples.splitlines())
        if hidden:
            self._hidden.add(name)
        listed: dict[str, Any] = {} if hidden else {"help": summary}
        made = self.group.add_parser(
            name,
            description=textwrap.fill(_sentence(summary), 78),
            epilog="examples:" + lines,
            own=self.own,
            configurable=configurable,
            **listed,
        )
        made.set_defaults(parser=made, **({"run": run} if run else {}))
        return made

    def option(self, *names: str, default: Any = None, **given: Any) -> None:
        """An argument with a default of its own."""
        self.add_argument(*names, default=default, **given)

    def read(self, argv: Sequence[str]) -> argparse.Namespace:
        """The command and its arguments; raises ``UsageError``."""
        for word in argv:  # argparse would take the value of an unknown option for the command
            if word.startswith("--") and word.partition("=")[0] not in self._option_string_actions:
                self.refuse([word])
            if not word.startswith("-"):
                break
        args, rest = self.parse_known_args(argv)
        last = getattr(args, "parser", self)
        if not last.configurable and hasattr(args, "config"):
            write(sys.stderr, "--config is not read: this command needs no configuration")
        if rest and not last.takes_anything:
            last.refuse(rest)
        if not hasattr(args, "run"):
            last.refuse([])
        args.as_json = getattr(args, "as_json", False)
        args.config = getattr(args, "config", None)
        return args

    def refuse(self, unknown: list[str]) -> NoReturn:
        """Raise for arguments that this command does not have, or for a command that is missing."""
        names = [word.partition("=")[0] for word in unknown if word.startswith("-")]
        if names:
            known = (option for action in self._actions for option in action.option_strings)
            self.error("unknown option %s%s" % (names[0], meant(names[0], known)))
        if unknown:
            self.error("unexpected argument %r" % unknown[0])
        self.error("a command is missing" + self._there_are)

    @property
    def names(self) -> list[str]:
        """The commands below this one, hidden ones left out."""
        known = self.group.choices if self.group is not None else ()
        return [name for name in known if name not in self._hidden]

    def below(self, name: str) -> Parser:
        """The parser of a command below this one; raises ``UsageError``."""
        found = self.group.choices.get(name) if self.group is not None else None
        if found is None:
            self.error(self._unknown(name))
        return found

    def _unknown(self, name: str) -> str:
        return "unknown command %r%s" % (name, meant(name, self.names) or self._there_are)

    @property
    def _there_are(self) -> str:
        names = ", ".join(self.names)
        return "; there are: " + names if len(names) < 60 else ""  # the help lists them

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action is self.group and value not in self.group.choices:
            raise argparse.ArgumentError(None, self._unknown(str(value)))
        super()._check_value(action, value)

    def _print_message(self, message: str, file: Any = None) -> None:
        write(sys.stderr if file is None else file, message, end="")

    def error(self, message: str) -> NoReturn:
        """Raise ``UsageError`` with the way to the help."""
        raise UsageError(message, "%s --help shows how it is used" % self.prog)


def meant(word: str, known: Iterable[str]) -> str:
    """A suggestion, or nothing."""
    found = get_close_matches(word, list(known), 1, 0.5)
    return "; did you mean %s?" % found[0] if found else ""


def whole(text: str) -> int:
    """An int, for ``type=``."""
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError("not a whole number: %r" % text) from None


def decimal(text: str) -> float:
    """A float, for ``type=``."""
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError("not a number: %r" % text) from None


def number(text: str) -> float:
    """An int where it is one, else a float, for ``type=``."""
    try:
        return int(text)
    except ValueError:
        return decimal(text)


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + "."
