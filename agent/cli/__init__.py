"""The command line: what the integrator types, and what a support desk asks for.

``main`` turns every ending into an exit status: 0 done, 1 a negative answer, 2 wrong usage or configuration, 130
interrupted. Results go to stdout, everything else to stderr, and a mistake is one clear line. What a command does is
in its module; nothing below this floor knows that there is a command line.
"""

from __future__ import annotations

import errno
import os
import sys
from typing import TYPE_CHECKING, Optional

from ..errors import AgentError, ConfigError, EventError
from . import probing
from .output import Output, Unheard, printable, write

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..config import Config

__all__ = ["main", "probing"]

DONE, NEGATIVE, WRONG, INTERRUPTED = 0, 1, 2, 130


def main(argv: Optional[Sequence[str]] = None, *, config: Optional[Config] = None) -> int:
    """Run one command and give its exit status; ``argv`` is without the program's name.

    With ``config``, a frozen product's own, no command needs ``--config``. Raises ``TypeError`` and ``ConfigError``
    for arguments of a wrong type, nothing else of what is foreseen.
    """
    words = _words(argv)
    _check_config(config)
    try:
        return _run(words, config)
    except KeyboardInterrupt:
        return _failed("interrupted", INTERRUPTED)
    except Unheard as unheard:
        return _unheard(unheard.error)
    except (ConfigError, EventError) as error:
        return _failed("error: %s" % error, WRONG)
    except AgentError as error:
        return _failed("error: %s" % error, NEGATIVE)
    except OSError as error:
        return _failed("error: %s" % _in_words(error), NEGATIVE)


def _run(argv: list[str], config: Optional[Config]) -> int:
    from .arguments import UsageError, handed_on
    from .commands import parser

    handed_on(argv)
    try:
        args = parser(config is not None).read(argv)
        return args.run(args, Output(args.as_json), config)  # type: ignore[no-any-return]
    except UsageError as error:
        return _failed("\n".join(["error: %s" % error, *error.more]), WRONG)
    except SystemExit as error:  # argparse, having shown a help text
        return error.code if isinstance(error.code, int) else DONE


def _words(argv: Optional[Sequence[str]]) -> list[str]:
    if argv is None:
        return sys.argv[1:]
    came = type(argv).__name__
    if hasattr(argv, "__iter__") and not isinstance(argv, (str, bytes)):
        words = list(argv)
        wrong = [type(word).__name__ for word in words if not isinstance(word, str)]
        if not wrong:
            return words
        came = "%s with %s" % (came, wrong[0])
    raise TypeError('argv: got %s, allowed is a list of str such as ["spool", "status"]' % came)


def _check_config(config: object) -> None:
    from ..config import Config

    if config is not None and not isinstance(config, Config):
        raise ConfigError("config: got %s, allowed is a Config" % type(config).__name__, "config")


def _failed(text: str, status: int) -> int:
    try:
        write(sys.stderr, text)
    except Unheard:
        pass
    return status


def _unheard(error: OSError) -> int:
    """Nobody takes our output: no traceback, here or when the interpreter flushes at its end."""
    try:
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, sys.stdout.fileno())
        os.close(nothing)
    except (OSError, ValueError, AttributeError):
        pass
    # The reader has read enough, as head does; Windows says so as if the call were wrong.
    if isinstance(error, BrokenPipeError) or (os.name == "nt" and error.errno == errno.EINVAL):
        return NEGATIVE
    return _failed("error: stdout: %s" % _in_words(error), NEGATIVE)


def _in_words(error: OSError) -> str:
    reason = error.strerror or str(error) or type(error).__name__
    return printable("%s: %s" % (error.filename, reason) if error.filename else reason)
