"""What may be recorded: each function takes one argument of a recording call and returns what is kept of it.

*Mistakes raise, content does not*: a wrong type, an unknown name or a missing argument is an ``EventError`` that names
the field and repeats nothing that may be a secret; content that cannot be sent (NaN, an empty text, an address that is
none) gives None, and the caller counts it. Here is also the licence as the vendor gives it: whatever comes, a record is
made with it.
"""

from __future__ import annotations

from .config import is_ip
from .errors import EventError, is_a, mistake
from .lines import dumps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Optional, Union

    Given = Union[None, str, tuple[Optional[str], Optional[str]], Callable[[], object]]

USER_ID_TYPES = ("EMAIL", "SOCIAL", "LINKEDIN", "GITHUB", "USERNAME")
# Names are keys on the server, where a column commonly holds 255 characters.
NAME_MAX_CHARS, USER_ID_MAX_CHARS, TEXT_MAX_CHARS, LICENCE_MAX_CHARS = 255, 1024, 32_768, 4096
# Beyond 2^53 JSON numbers are not exact in every language (RFC 8259, 6); beyond a double they are infinity.
COUNT_MAX, NUMBER_MAX_BITS = 2**53, 1023
# Of ``meta``; the marks that close cut containers, one per level, need under 1 KiB of its 16.
META_MAX_BYTES, MARKS_MAX_BYTES = 16 * 1024, 1024
DEPTH_MAX, ITEMS_MAX, STRING_MAX_CHARS = 8, 256, 4096
MARK, TRUNCATED = "…", "_truncated"
_BYTES, _BOOLS = (bytes, bytearray, memoryview), ("bool", "bool_")  # NumPy has its own


def clean(text: str, limit_chars: int) -> str:
    """An exact ``str`` of at most ``limit_chars``, "…" at its end if cut, lone surrogates replaced by U+FFFD."""
    cut = str.__len__(text) > limit_chars
    # Base class methods: a subclass may have made its own of these.
    part = str.__getitem__(text, slice(limit_chars - 1 if cut else limit_chars))
    try:
        part.encode("utf-8")
    except UnicodeEncodeError:
        part = part.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return part + MARK if cut else part


def name(value: object, field: str) -> str:
    """An ``activity_type`` or a ``data_group``: never empty, cut at 255 characters."""
    found = clean(value, NAME_MAX_CHARS) if is_a(value, str) else ""
    if not found.strip():
        raise mistake(field, value, "a non-empty str", EventError)
    return found


def text(value: object, field: str = "text", limit_chars: int = TEXT_MAX_CHARS) -> Optional[str]:
    """A text, cut at 32,768 characters; None for an empty one."""
    if not is_a(value, str):
        raise mistake(field, value, "a str", EventError)
    found = clean(value, limit_chars)
    return found if found.strip() else None


def user_id(value: object) -> Optional[str]:
    """Whoever used the product, cut at 1,024 characters; None for None and for an empty text."""
    return None if value is None else text(value, "user_id", USER_ID_MAX_CHARS)


def user_id_type(value: object, has_user_id: bool) -> str:
    """One of the five kinds; the user identifier, which is sent where no user id is given, is of kind USERNAME."""
    found = str.__str__(value) if is_a(value, str) else ""
    if found not in USER_ID_TYPES:
        raise mistake("user_id_type", value, "one of " + ", ".join(USER_ID_TYPES), EventError)
    if found != "USERNAME" and not has_user_id:
        raise EventError("user_id: missing, and user_id_type says that it is %s" % found, "user_id")
    return found


def ip_addr(value: object) -> Optional[str]:
    """An IP address (str, or an object of ``ipaddress``) as text; None for None and for what is no address."""
    if value is None:
        return None
    known = hasattr(type(value), "max_prefixlen")
    if not known and not is_a(value, str):
        raise mistake("ip_addr", value, "None or an IP address", EventError)
    found = str(value) if known else str.__str__(value)
    return found if is_ip(found) else None


def count(value: object) -> int:
    """A whole number from 0, which counts nothing, to 2^53."""
    found = number(value, "n") if hasattr(type(value), "__index__") else None
    if found is None or not 0 <= int(found) <= COUNT_MAX:
        raise mistake("n", value, "an int from 0 to 2**53", EventError)
    return int(found)


def number(value: object, field: str) -> Optional[str]:
    """The text of a number ("50", "3.2"), or None for one that cannot be sent: NaN, infinite, too large."""
    try:
        found = _number(value)
    except TypeError:  # no number; or an array of several
        raise mistake(field, value, "a number", EventError) from None
    except Exception:  # too large, a signalling NaN, or whatever its own method raises
        return None
    return None if found is None else str(found)


def _number(value: Any) -> Union[None, int, float, str]:
    """A number as it is sent: exact, a Decimal with its own digits, those of any library by what they can be turned to.

    None for NaN, the infinities and what a double cannot hold; raises ``TypeError`` for what is no number.
    """
    kind = type(value)
    whole = hasattr(kind, "__index__")
    if kind.__name__ in _BOOLS or not (whole or hasattr(kind, "__float__")):
        raise TypeError
    if whole:
        found = int.__add__(value if issubclass(kind, int) else kind.__index__(value), 0)
        return found if found.bit_length() <= NUMBER_MAX_BITS else None
    real = float.__add__(value if issubclass(kind, float) else float(value), 0.0)
    digits = str(value) if hasattr(kind, "as_tuple") else ""
    if not 0 < len(digits) <= NUMBER_MAX_BITS or digits.strip("0123456789+-.E"):
        return real if real - real == 0 else None
    return digits if real - real == 0 else None


# -- meta ------------------------------------------------------------------------------------------------------


def meta(value: object) -> Optional[dict[str, Any]]:
    """None, or a mapping as plain JSON data of at most 16 KiB, made at once and without trusting it.

    It is asked little, a bounded part of it is copied, and what is cut off leaves a visible mark.
    """
    if value is None:
        return None
    if not _is_mapping(type(value)):
        raise mistake("meta", value, "None or a dict", EventError)
    found = _Meta().value(value)
    # A mapping that does not let itself be read leaves a text.
    return found if isinstance(found, dict) else {"_unreadable": found}


def _is_mapping(kind: type) -> bool:
    return all(hasattr(kind, name) for name in ("keys", "items", "__getitem__"))


class _Meta:
    """One call's way down, and the bytes that are left to it."""

    def __init__(self) -> None:
        self.left_bytes = META_MAX_BYTES - MARKS_MAX_BYTES
        self.path: list[int] = []

    def value(self, value: object) -> Any:
        """JSON data for anything: of a container its parts, of a number the number, else a text."""
        try:
            held = self.container(value)
        except Exception:  # the caller's own methods run here; they may raise anything
            held = None
        if held is not None:
            return held
        try:
            return self.charged(_scalar(value))
        except Exception:  # its own name, whatever its metaclass says
            return self.charged("<%s>" % type.__dict__["__name__"].__get__(type(value)))

    def charged(self, scalar: Any) -> Any:
        """``scalar``; a text is cut to what is left."""
        if is_a(scalar, str):
            scalar = clean(scalar, STRING_MAX_CHARS)
            if len(dumps(scalar)) > self.left_bytes:
                # A character takes at most 12 bytes (a surrogate pair, escaped).
                scalar = scalar[: max(self.left_bytes, 0) // 12] + MARK
        self.left_bytes -= len(dumps(scalar))
        return scalar

    def container(self, value: Any) -> Any:
        """A dict or a list for what holds a known number of things; None for the rest, iterators too."""
        kind = type(value)
        mapping = _is_mapping(kind) or hasattr(kind, "__dataclass_fields__")
        holds = hasattr(kind, "__len__") and hasattr(kind, "__iter__")
        if not (mapping or holds) or hasattr(kind, "casefold") or issubclass(kind, _BYTES):
            return None
        if id(value) in self.path or len(self.path) >= DEPTH_MAX:
            return self.charged("<cycle>" if id(value) in self.path else MARK)
        # An odd dict is still a dict: its class may have made its own of ``items``.
        read: Any = dict.items if issubclass(kind, dict) else getattr(kind, "items", _attributes)
        parts = iter(read(value) if mapping else value)
        self.path.append(id(value))
        try:
            return self.filled({} if mapping else [], parts)
        finally:
            self.path.pop()

    def filled(self, found: Any, parts: Any) -> Any:
        """``found`` with as many of the parts as there is room for, and a mark where that is not all."""
        self.left_bytes -= 2
        try:
            for part in parts:
                if self.left_bytes <= 0 or len(found) >= ITEMS_MAX:
                    raise OverflowError
                self.left_bytes -= 2
                if type(found) is list:
                    found.append(self.value(part))
                else:
                    label = part[0] if is_a(part[0], str) else str(self.value(part[0]))
                    label = self.charged(label)  # before its value is
                    found[label] = self.value(part[1])
        except Exception:  # no room; changed by another thread; made to raise
            found.append(MARK) if type(found) is list else found.update({TRUNCATED: True})
        return found


def _attributes(value: Any) -> Any:
    return ((name, getattr(value, name)) for name in value.__dataclass_fields__)


def _scalar(value: Any) -> Any:
    """Numbers as numbers, what has a text as a text; raises for the rest."""
    kind: Any = type(value)
    if value is None or kind.__name__ in _BOOLS:
        return value if value is None else bool(value)
    if issubclass(kind, _BYTES):
        return bytes(value[: STRING_MAX_CHARS + 1]).decode("utf-8", "replace")
    if hasattr(kind, "isoformat"):
        return value.isoformat()
    if not hasattr(kind, "casefold"):  # a text may look like a number
        try:
            found = _number(value)
            # More than 63 bits are no number to most readers.
            return str(found) if isinstance(found, int) and found.bit_length() > 63 else found
        except TypeError:
            pass
    if kind.__str__ is object.__str__ and kind.__repr__ is object.__repr__:
        raise TypeError  # it would show an address
    return value if issubclass(kind, str) else str(value)


# -- the licence -----------------------------------------------------------------------------------------------


class Licence:
    """The current licence; replaced whole, so no record sees half of a change."""

    __slots__ = ("_given", "_activation", "_last", "trouble")

    def __init__(self, license_key: Given, activation_identifier: Optional[str] = None) -> None:
        activation = _pair((None, activation_identifier))
        if activation is None:
            field = "activation_identifier"
            raise mistake(field, activation_identifier, "a str or None", EventError)
        if not callable(license_key) and _pair(license_key) is None:
            allowed = "None, a str, a pair (key, activation) or a callable"
            raise mistake("license_key", license_key, allowed, EventError)
        self._given: object = license_key
        self._activation = activation[1]  # of a key that comes without one
        self._last = ("", "")
        self.trouble = ""  # why the callable's last answer was no licence

    def read(self) -> tuple[str, str]:
        """(key, activation identifier), "" for what there is not; a callable is called here, once.

        If it raises or gives nonsense, the last good answer is taken.
        """
        given = self._given
        try:
            found = given() if callable(given) else given
            pair = _pair(found)
            trouble = "" if pair else "the licence callable gave a " + type(found).__name__
        # SystemExit: a licence check that ends the program has its own place to do so.
        except (Exception, SystemExit) as error:
            pair, trouble = None, "the licence callable raised " + type(error).__name__
        self.trouble = trouble
        self._last = key, activation = pair or self._last
        return key, activation or (self._activation if key else "")


def _pair(given: object) -> Optional[tuple[str, str]]:
    """Key and activation identifier, without surrounding white space; None for what is no licence."""
    pair: Any = given if is_a(given, tuple) else (given, None)
    if len(pair) != 2 or not all(part is None or is_a(part, str) for part in pair):
        return None
    texts = ["" if part is None else str.strip(part) for part in pair]
    return clean(texts[0], LICENCE_MAX_CHARS), clean(texts[1], LICENCE_MAX_CHARS)
