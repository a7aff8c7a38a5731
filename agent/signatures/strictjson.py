"""JSON with one reading: UTF-8 without a mark, bounded nesting, no NaN, no number that costs time."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable

# Real answers open a dozen. Bounded before the parser runs: a host may have raised the recursion limit beyond what a
# thread's stack can carry.
MAX_BRACKETS = 256
# 2^53 has 16 digits; longer numbers become floats, which nothing here accepts where an integer is needed.
_MAX_INTEGER_CHARS = 17


def unambiguous(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object of ``pairs``; raises ``ValueError`` for a duplicate name."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("duplicate name")
    return found


def loads(data: bytes, *, on_object: Callable[[Any], Any] = unambiguous) -> Any:
    """The value of ``data``; every object is ``on_object(pairs)``. Raises ``ValueError``."""
    import json

    try:
        if data.count(b"[") + data.count(b"{") > MAX_BRACKETS:
            raise ValueError("nested too deeply")
        return json.loads(
            data.decode("utf-8"),
            object_pairs_hook=on_object,
            parse_int=lambda text: (int if len(text) <= _MAX_INTEGER_CHARS else float)(text),
            parse_constant=int,  # raises: "NaN" is no integer
        )
    except (ValueError, RecursionError):
        raise ValueError("is not JSON that everybody reads alike") from None
