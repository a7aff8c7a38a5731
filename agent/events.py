"""What a recording call may be given: each function checks one argument and returns what is kept of it.

A mistake (a wrong type, an unknown name, nothing where something is required) raises ``EventError`` with the field,
what came and what is allowed; odd content never does. Building records of these values is left to ``endpoints``.
"""

from __future__ import annotations

from . import checks
from .errors import EventError
from .plain import clean, is_mapping, plain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Optional

# Closed set of the usage collector's table.
USER_ID_TYPES = ("EMAIL", "SOCIAL", "LINKEDIN", "GITHUB", "USERNAME")
# Names of metrics and groups are keys on the server, where a column commonly holds 255 characters.
NAME_MAX_CHARS = 255
USER_ID_MAX_CHARS = 1024
TEXT_MAX_CHARS = 32_768
# Beyond it JSON numbers are no longer exact in every language (RFC 8259, section 6).
COUNT_MAX = 2**53
# A double reaches 2^1024; what is larger is infinity to the server.
_NUMBER_MAX_BITS = 1023


def name(value: object, field: str, limit_chars: int = NAME_MAX_CHARS) -> str:
    """An ``activity_type`` or a ``data_group``: cut at 255 characters."""
    found = clean(value, limit_chars) if checks.is_a(value, str) else ""
    if not found.strip():
        raise _mistake(field, value, "a non-empty str")
    return found


def user_id(value: object) -> str:
    """Whoever used the product, cut at 1,024 characters."""
    return name(value, "user_id", USER_ID_MAX_CHARS)


def user_id_type(value: object) -> str:
    """One of the five kinds of user id."""
    found = str.__str__(value) if checks.is_a(value, str) else ""
    if found not in USER_ID_TYPES:
        raise _mistake("user_id_type", value, "one of " + ", ".join(USER_ID_TYPES))
    return found


def ip_addr(value: object) -> Optional[str]:
    """An IP address (str, or an object of ``ipaddress``) as text, or None."""
    if value is None:
        return None
    found = str.__str__(value) if checks.is_a(value, str) else ""
    if hasattr(type(value), "max_prefixlen"):
        found = str(value)
    if not checks.is_ip(found):
        raise _mistake("ip_addr", value, "None or an IP address")
    return found


def text(value: object, field: str = "text") -> str:
    """Any ``str``, cut at 32,768 characters with "…" at its end."""
    if not checks.is_a(value, str):
        raise _mistake(field, value, "a str")
    return clean(value, TEXT_MAX_CHARS)


def count(value: object, field: str = "n") -> int:
    """A whole number from 1 to 2^53."""
    if type(value) is int and 1 <= value <= COUNT_MAX:
        return value
    found = number(value, field) if hasattr(type(value), "__index__") else None
    if found is None or not 1 <= int(found) <= COUNT_MAX:
        raise _mistake(field, value, "an int from 1 to 2**53")
    return int(found)


def number(value: Any, field: str) -> Optional[str]:
    """The text of a number ("50", "3.2"), or None for one that cannot be sent: NaN, infinite, too large.

    Numbers of other types (Decimal, Fraction, NumPy) count if they have ``__index__`` or ``__float__``.
    """
    kind = type(value)
    try:
        if kind.__name__ in ("bool", "bool_"):  # NumPy has its own
            raise TypeError
        if hasattr(kind, "__index__"):
            whole = int.__add__(kind.__index__(value), 0)
            return int.__repr__(whole) if whole.bit_length() <= _NUMBER_MAX_BITS else None
        if not hasattr(kind, "__float__"):
            raise TypeError
        real = float.__float__(float(value))
        return float.__repr__(real) if real - real == 0 else None
    except TypeError:  # no number; or an array of several
        raise _mistake(field, value, "a number") from None
    except Exception:  # too large, a signalling NaN, or whatever its own method raises
        return None


def meta(value: object) -> Optional[dict[str, Any]]:
    """None, or a mapping as plain JSON data of at most 16 KiB; see ``plain``."""
    if value is None:
        return None
    if not is_mapping(type(value)):
        raise _mistake("meta", value, "None or a dict")
    found = plain(value)
    # A mapping that does not let itself be read leaves a text.
    return found if isinstance(found, dict) else {"_unreadable": found}


def _mistake(field: str, value: object, allowed: str) -> EventError:
    return checks.mistake(field, value, allowed, EventError)
