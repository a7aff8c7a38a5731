"""Every exception that this package raises on purpose, how a part that a copy may lack is asked for, and ``debug``.

Errors carry facts as attributes, never a secret, and survive pickling: all facts travel in ``args``.
"""

from __future__ import annotations

import os
import sys
from errno import errorcode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class AgentError(Exception):
    """The root of everything raised on purpose."""

    def __str__(self) -> str:
        return str(getattr(self, "reason", self.args[0] if self.args else ""))


class _FieldError(AgentError, ValueError):
    """A caller's mistake in one named ``field``."""

    def __init__(self, message: str, field: str = "") -> None:
        super().__init__(message, field)
        self.field = field


class ConfigError(_FieldError):
    """A configuration that cannot work; ``field`` names the setting."""


class EventError(_FieldError):
    """A recording call with a wrong type, an unknown name or a missing argument."""


class VerificationError(AgentError):
    """An answer that proves nothing; each subclass is one reason."""


class SignatureInvalid(VerificationError):
    """No trusted key signed these bytes."""


class AnswerStale(VerificationError):
    """Signed and trusted, but ``skew_s`` seconds away from the given time (negative: older)."""

    def __init__(self, message: str, skew_s: int = 0) -> None:
        super().__init__(message, skew_s)
        self.skew_s = skew_s


class EnvelopeMalformed(VerificationError):
    """Not an answer envelope, or not an unambiguous one."""


class CodeUnknown(VerificationError):
    """Signed and trusted, but its ``code`` is no telemetry receipt."""

    def __init__(self, message: str, code: int = 0) -> None:
        super().__init__(message, code)
        self.code = code


class Unverifiable(VerificationError):
    """This interpreter lacks the cryptography to decide; never to be read as valid."""


# What is put into these, however wrong, may be a secret.
SECRETS = ("api_key", "license_key", "activation_identifier", "proxy", "proxy_auth")


def mistake(field: str, value: Any, allowed: str, error: Any = ConfigError) -> Any:
    """The error for a wrong ``value``: numbers as they are, of anything else the type, for it may be a secret."""
    kind = type(value)
    shown = kind in (int, float) and abs(value) < 2**63 and field not in SECRETS
    came = repr(value) if shown else kind.__name__
    return error("%s: got %s, allowed is %s" % (field, came, allowed), field)


def part(name: str, needs: str) -> Any:
    """The module ``name`` of ``extras``, ``cli`` or ``looking``; ``needs`` names what asks for it.

    A copy may lack it: raises ``ConfigError`` that names the part and the option that brings it.
    """
    home = name if name in ("cli", "looking") else "extras." + name
    try:
        module: Any = __import__(home, globals(), None, ("*",), 1)
    except Exception:  # or half of its file
        module = None
    # What was emptied, a folder or a file, is a module to Python all the same, one without a name in it.
    if all(found.startswith("_") for found in dir(module)):
        message = "%s needs the part %r, which this copy lacks: vendor DEST --with %s"
        raise ConfigError(message % (needs, name, name), needs)
    return module


def optional(name: str, home: str) -> Any:
    """The public ``name`` of a part, or something that raises its ``ConfigError`` when it is used."""
    try:
        return getattr(part(home, name), name)
    except ConfigError:
        return Missing(name, home)


class Missing:
    """Stands for a public name whose part this copy lacks, so that ``import *`` goes on working."""

    def __init__(self, name: str, home: str) -> None:
        self.name, self.home = name, home

    def __call__(self, *args: object, **given: object) -> Any:
        return getattr(part(self.home, self.name), self.name)(*args, **given)


def debug(text: str, *args: object) -> None:
    """Tell the host's DEBUG log, where it has ``logging``, or stderr where ``AGENT_DEBUG`` is set.

    Under no lock of ours; ``text`` is one of a fixed set, ``args`` hold no secret; the line is cut, printable ASCII.
    """
    logging: Any = sys.modules.get("logging")
    try:
        # ``shutdown`` comes last in it: another thread may be loading the rest.
        logger = logging.getLogger(__package__) if hasattr(logging, "shutdown") else None
        if logger is not None and logger.isEnabledFor(10):
            logger.debug("%s", ascii(text % args)[1:-1][:500])
        elif os.environ.get("AGENT_DEBUG", "") not in ("", "0"):
            from time import strftime

            told = strftime("%H:%M:%S"), __package__, os.getpid(), ascii(text % args)[1:-1][:500]
            stream: Any = sys.stderr  # None in a program without a console
            # Not through its buffer: an exit that finds a background thread holding its lock aborts.
            os.write(stream.fileno(), ("%s %s[%d] %s\n" % told).encode())
    except (Exception, SystemExit):  # a handler is the host's code
        pass


_HTTP = "http.client"  # by name: loading it may be what failed
_NAMED = {"HTTPException": "too many headers", "LineTooLong": "a line that is too long"}
_MISSING = {"socks": "SOCKS proxies need PySocks", "certifi": "no CA certificates (set ca_bundle)"}


def root_of(error: BaseException) -> BaseException:
    """What is behind ``error``: urllib3 keeps it among the arguments, or raises in the middle of handling it."""
    while not isinstance(error, (AgentError, OSError)) and type(error).__module__ != _HTTP:
        inner = [one for one in (*error.args, error.__context__) if isinstance(one, BaseException)]
        if not inner:
            break
        error = inner[0]
    return getattr(error, "socket_err", None) or error


def in_words(error: BaseException) -> str:
    """Why there was no answer, in words that are safe to show.

    HTTP libraries quote what they choked on: URLs, headers, the server's bytes. Only our own texts, the operating
    system's and the fixed vocabulary of TLS are passed on.
    """
    said, name = str(getattr(error, "reason", "") or ""), type(error).__name__
    if isinstance(error, AgentError):
        return said
    if hasattr(error, "verify_message"):
        return "certificate refused: %s" % error.verify_message
    if name.startswith("SSL"):
        return said.replace("_", " ").lower() or "the connection was lost"
    if name == "RemoteDisconnected":
        return "the server closed the connection without an answer"
    if type(error).__module__ == _HTTP:
        return "not an HTTP answer (%s)" % _NAMED.get(name, name)
    if hasattr(error, "socket_err"):  # PySocks
        return "refuses us or our password (SOCKS)"
    if isinstance(error, ImportError):
        return _MISSING.get(str(error.name), "the library %s cannot be imported" % error.name)
    # The status of a proxy's answer to CONNECT is there and nowhere else.
    status = str(error).partition("Tunnel connection failed: ")[2][:3]
    if status.isdigit():
        return "refused to connect (HTTP %s)" % status
    if isinstance(error, OSError) and error.strerror:
        code = errorcode.get(error.errno or 0)
        return "%s (%s)" % (error.strerror, code) if code else error.strerror
    return "no answer" if "imeout" in name else name
