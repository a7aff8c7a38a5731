"""What may be recorded: each function takes one argument of a recording call and returns what is kept of it.

*Mistakes raise, content does not*: a wrong type, an unknown name or a missing argument is an ``EventError`` that names
the field; content that cannot be sent (NaN, an empty text) gives None, and is counted. Whatever a licence is, a record
is made. Types are asked for by ``type()``: ``__class__`` may raise.
"""

from __future__ import annotations

from .config import is_ip
from .errors import TYPE_CHECKING, EventError, mistake
from .lines import dumps

if TYPE_CHECKING:
    from typing import Any, Callable, Optional, Union

    Given = Union[None, str, tuple[Optional[str], Optional[str]], Callable[[], object]]

USER_ID_TYPES = ("EMAIL", "SOCIAL", "LINKEDIN", "GITHUB", "USERNAME")
# Names are keys on the server, where a column commonly holds 255 characters.
NAME_MAX_CHARS, USER_ID_MAX_CHARS, TEXT_MAX_CHARS, LICENCE_MAX_CHARS = 255, 1024, 32_768, 4096
# Beyond 2^53 JSON numbers are not exact in every language (RFC 8259, 6); a double ends at 1,024 bits.
COUNT_MAX, NUMBER_MAX_BITS = 2**53, 1023
# Of ``meta``; the marks that close cut containers, one per level, need under 1 KiB of its 16.
META_MAX_BYTES, MARKS_MAX_BYTES = 16 * 1024, 1024
DEPTH_MAX, ITEMS_MAX, STRING_MAX_CHARS = 8, 256, 4096
MARK, TRUNCATED = "…", "_truncated"


def clean(text: str, limit_chars: int) -> str:
    """An exact ``str`` of at most ``limit_chars``, "…" at its end if cut, without lone surrogates."""
    cut = str.__len__(text) > limit_chars
    # Base class methods: a subclass may have made its own of these.
    part = str.__getitem__(text, slice(limit_chars - cut))
    try:
        part.encode("utf-8")
    except UnicodeEncodeError:
        part = part.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return part + MARK if cut else part


def name(value: Any, field: str) -> str:
    """An ``activity_type`` or a ``data_group``: never empty, cut at 255 characters."""
    if not issubclass(type(value), str) or not str.strip(value):
        raise mistake(field, value, "a non-empty str", EventError)
    return clean(value, NAME_MAX_CHARS)


def text(value: Any, field: str = "text", limit_chars: int = TEXT_MAX_CHARS) -> str | None:
    """A text, cut at 32,768 characters; None for an empty one."""
    if not issubclass(type(value), str):
        raise mistake(field, value, "a str", EventError)
    return clean(value, limit_chars) if str.strip(value) else None


def user_id(value: Any) -> str | None:
    """Whoever used the product, cut at 1,024 characters; None for None and for an empty text."""
    return None if value is None else text(value, "user_id", USER_ID_MAX_CHARS)


def user_id_type(value: Any, has_user_id: bool) -> str:
    """One of the five kinds; USERNAME, where the user identifier is sent for want of a user id."""
    found = str.__str__(value) if issubclass(type(value), str) else ""
    if found not in USER_ID_TYPES:
        raise mistake("user_id_type", value, "one of " + ", ".join(USER_ID_TYPES), EventError)
    if found != "USERNAME" and not has_user_id:
        raise EventError("user_id: missing, and user_id_type says that it is " + found, "user_id")
    return found


def ip_addr(value: Any) -> str | None:
    """An IP address as text; None for None and for what is no address."""
    found = text("" if value is None else value, "ip_addr")
    return found if found and is_ip(found) else None


def count(value: Any) -> int:
    """A whole number from 0, which counts nothing, to 2^53."""
    found = number(value, "n") if hasattr(type(value), "__index__") else None
    if found is None or not 0 <= int(found) <= COUNT_MAX:
        raise mistake("n", value, "an int from 0 to 2**53", EventError)
    return int(found)


def number(value: Any, field: str) -> str | None:
    """The text of a number ("50", "3.2") of any library; None for NaN, infinite ones, too large ones."""
    kind = type(value)
    try:
        # A bool is a number to Python, and so is NumPy's to NumPy.
        if kind.__name__ in ("bool", "bool_") or not hasattr(kind, "__float__"):
            raise TypeError
        found = kind.__index__(value) + 0 if hasattr(kind, "__index__") else float(value)
        # Of money every digit counts; as many as any number here may have.
        text = format(value, ".300g") if kind.__name__ == "Decimal" else str(found)
        return text if abs(found) < 2**NUMBER_MAX_BITS else None
    except TypeError:  # an array of several
        raise mistake(field, value, "a number", EventError) from None
    except Exception:  # whatever its own method raises
        return None


# -- meta ----


def meta(value: Any) -> dict[str, Any] | None:
    """None, or of a mapping, untrusted, at most 16 KiB of plain JSON data; what is cut off leaves a visible mark."""
    if value is None:
        return None
    if not hasattr(type(value), "keys"):
        raise mistake("meta", value, "None or a dict", EventError)
    found = _Meta().plain(value)
    return found if type(found) is dict else {TRUNCATED: True}


class _Meta:
    """One call, and the bytes that are left to it."""

    left_bytes = META_MAX_BYTES - MARKS_MAX_BYTES

    def plain(self, value: Any, level: int = 1) -> Any:
        """JSON data for anything: an object for a mapping, a list for other containers, else a scalar."""
        found: dict[Any, Any] = {}
        mapping = False
        try:
            mapping = hasattr(value, "keys")
            holds = mapping or (hasattr(value, "__len__") and hasattr(value, "__iter__"))
            if not holds or issubclass(type(value), str):
                return self.charged(_scalar(value))
            for key, part in value.items() if mapping else enumerate(value):
                self.left_bytes -= 4
                if self.left_bytes <= 0 or len(found) >= ITEMS_MAX or level > DEPTH_MAX:
                    raise OverflowError
                key = self.charged(str(key)) if mapping else key  # before its value is
                found[key] = self.plain(part, level + 1)
        except Exception:  # no room; changed by another thread; the caller's own methods run here
            self.left_bytes -= 16
            found[TRUNCATED] = True if mapping else MARK
        return found if mapping else list(found.values())

    def charged(self, scalar: Any) -> Any:
        """``scalar``; a text is cut at 4,096 characters, and to what is left."""
        if issubclass(type(scalar), str):
            scalar = clean(scalar, STRING_MAX_CHARS)
            if len(dumps(scalar)) > self.left_bytes:  # a character takes at most 12 of them
                scalar = clean(scalar, max(self.left_bytes // 12, 1))
        self.left_bytes -= len(dumps(scalar))
        return scalar


def _scalar(value: Any) -> Any:
    """Numbers as numbers, NumPy's too; all else as its text."""
    value = value.item() if hasattr(type(value), "item") else value
    kind = type(value)
    if value is None or kind is bool or issubclass(kind, str):
        return value
    if issubclass(kind, float):
        return float.__float__(value) if value - value == 0 else None
    if issubclass(kind, int) and -(2**63) <= value < 2**63:  # more bits are no number to most
        return int.__index__(value)
    return str(value)


# -- the licence ----


class Licence:
    """The current licence; replaced whole, so no record sees half of a change.

    Raises ``EventError`` for arguments that are none; whatever a callable gives, a record is made.
    """

    def __init__(self, license_key: Given, activation_identifier: str | None = None) -> None:
        self._ask: Any = license_key if callable(license_key) else None
        self._activation = _pair((None, activation_identifier), "activation_identifier")[1]
        self.last = _pair(None if self._ask else license_key, "license_key", self._activation)
        self.trouble = ""  # why the callable's last answer was no licence

    def read(self) -> tuple[str, str]:
        """(key, activation identifier), "" for what there is not; a callable is called here, once.

        If it raises or gives nonsense, the last good answer is taken.
        """
        if self._ask is not None:
            try:
                self.last = _pair(self._ask(), "the answer", self._activation)
                self.trouble = ""
            # SystemExit: a licence check may end the program, but not here.
            except (Exception, SystemExit) as error:
                why = str(error) if type(error) is EventError else type(error).__name__
                self.trouble = "the licence callable: " + why
        return self.last


def _pair(given: Any, field: str, activation: str = "") -> tuple[str, str]:
    """Key and activation identifier, stripped; ``activation`` where a key has none of its own."""
    pair = given if issubclass(type(given), tuple) else (given, None)
    if len(pair) != 2 or not all(one is None or issubclass(type(one), str) for one in pair):
        raise mistake(field, given, "None, a str or (for a key) a pair of them", EventError)
    key, own = (clean(str.strip("" if one is None else one), LICENCE_MAX_CHARS) for one in pair)
    return key, own or (activation if key else "")
