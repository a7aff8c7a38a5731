"""Turns whatever a caller put into ``meta`` into plain JSON data: bounded, printable, made at once.

It never raises and never hangs on content: it asks each value little, copies a bounded part of it and falls back to a
type's name. What is cut off leaves a visible mark. It decides nothing about what is sent; that belongs to ``events``.
"""

from __future__ import annotations

from . import jsonline

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

DEPTH_MAX = 8
ITEMS_MAX = 256
STRING_MAX_CHARS = 4096
# What the encoded result may take; the marks that close cut containers, one per level, need under 1 KiB of it.
TOTAL_MAX_BYTES = 16 * 1024
_BUDGET_BYTES = TOTAL_MAX_BYTES - 1024
MARK = "…"
TRUNCATED = "_truncated"
# Larger integers are no numbers to most JSON readers; a text keeps their digits, up to a size that costs no time.
_INTEGER_MAX_BITS, _DIGITS_MAX_BITS = 63, 1024


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


def plain(value: object) -> Any:
    """JSON data for ``value``; its encoded text has at most 16 KiB. Whatever cannot be read becomes a type's name."""
    return _Encoding().value(value)


def is_mapping(kind: type) -> bool:
    """Whether values of this type are read as name -> value."""
    return issubclass(kind, dict) or all(
        hasattr(kind, name) for name in ("keys", "items", "__getitem__")
    )


class _Encoding:
    """One call's budget and its way down."""

    def __init__(self) -> None:
        self.left_bytes = _BUDGET_BYTES
        self.path: list[int] = []

    def value(self, value: object) -> Any:
        found: Any = MARK
        for convert in (_scalar, self.container, _described, _type_name):
            try:
                found = convert(value)
            except Exception:  # the caller's own methods run here; they may raise anything
                continue
            if found is not _NOTHING:
                break
        return found if type(found) in (dict, list) else self.charged(found)

    def charged(self, scalar: Any) -> Any:
        """``scalar``; a text is cut to what is left."""
        if type(scalar) is str:
            scalar = clean(scalar, STRING_MAX_CHARS)
            if len(jsonline.dumps(scalar)) > self.left_bytes:
                # A character takes at most 12 bytes (a surrogate pair, escaped).
                scalar = scalar[: max(self.left_bytes, 0) // 12] + MARK
        self.left_bytes -= len(jsonline.dumps(scalar))
        return scalar

    def container(self, value: Any) -> Any:
        """A dict or a list for anything that holds a known number of things."""
        kind = type(value)
        mapping = is_mapping(kind) or hasattr(kind, "__dataclass_fields__")
        # Iterators are not touched: they may be endless, block, or be somebody's to read. Nor is a text that is no str.
        holds = hasattr(kind, "__len__") and hasattr(kind, "__iter__")
        if not mapping and (not holds or hasattr(kind, "casefold")):
            return _NOTHING
        if id(value) in self.path:
            return "<cycle>"
        if len(self.path) >= DEPTH_MAX:
            return MARK
        # An odd dict is still a dict: its class may have made its own of ``items``.
        parts: Any = value
        if mapping:
            read = dict.items if issubclass(kind, dict) else getattr(kind, "items", _attributes)
            parts = read(value)
        self.path.append(id(value))
        try:
            return self.filled({} if mapping else [], iter(parts))
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
                    name = self.name(part[0])
                    found[name] = self.value(part[1])
        except Exception:  # no room; changed by another thread; made to raise
            found.append(MARK) if type(found) is list else found.update({TRUNCATED: True})
        return found

    def name(self, value: object) -> str:
        if value is None or type(value) in (bool, float):
            value = str(value)
        found = self.value(value)
        return found if type(found) is str else str(self.charged(jsonline.dumps(found)))


_NOTHING: Any = object()


def _scalar(value: Any) -> Any:
    """None, bool, int, float, str and bytes, subclasses too; NaN and the infinities become None."""
    kind = type(value)
    if value is None or kind is bool:
        return value
    if issubclass(kind, str):
        return clean(value, STRING_MAX_CHARS)
    if issubclass(kind, int):
        bits = int.bit_length(value)
        if bits <= _INTEGER_MAX_BITS:
            return int.__add__(value, 0)
        return int.__repr__(value) if bits <= _DIGITS_MAX_BITS else "<int of %d bits>" % bits
    if issubclass(kind, float):
        number = float.__add__(value, 0.0)
        return number if number - number == 0 else None
    if issubclass(kind, (bytes, bytearray, memoryview)):
        return bytes(value[: STRING_MAX_CHARS + 1]).decode("utf-8", "replace")
    return _NOTHING


def _described(value: Any) -> Any:
    """Dates and times, numbers of other libraries, and whatever has a text."""
    kind: Any = type(value)
    if hasattr(kind, "isoformat"):
        return _scalar(value.isoformat())
    if hasattr(kind, "__index__"):
        return _scalar(kind.__index__(value))
    # Not a Decimal, a text, nor, on Python 3.9, a complex: these say more as they are.
    text = issubclass(kind, complex) or hasattr(kind, "as_tuple") or hasattr(kind, "casefold")
    if hasattr(kind, "__float__") and not text:
        return _scalar(float(value))
    shows_address = kind.__str__ is object.__str__ and kind.__repr__ is object.__repr__
    return _NOTHING if shows_address else clean(str(value), STRING_MAX_CHARS)


def _attributes(value: Any) -> Any:
    return ((name, getattr(value, name)) for name in value.__dataclass_fields__)


def _type_name(value: object) -> str:
    """A type's own name, whatever its metaclass says."""
    return "<%s>" % clean(type.__dict__["__name__"].__get__(type(value)), 64)
