"""Every exception that this package raises on purpose.

They carry facts as attributes, never a secret, and survive pickling: all facts travel in ``args``.
This is the lowest floor; it imports nothing.
"""

from __future__ import annotations


class AgentError(Exception):
    """The root of everything raised on purpose."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


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
