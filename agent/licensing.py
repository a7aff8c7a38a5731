"""The licence as the vendor gives it: None, a key, a pair, or a callable that gives one.

It decides nothing about sending: whatever comes, there is a pair of texts, and a record is made with it.
"""

from __future__ import annotations

from .errors import EventError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Optional, Union

    Given = Union[None, str, tuple[Optional[str], Optional[str]], Callable[[], object]]

NO_LICENCE = ("", "")


class Licence:
    """The current licence; replaced whole, so no record sees half of a change."""

    __slots__ = ("_given", "_activation_identifier", "trouble")

    def __init__(self, license_key: Given, activation_identifier: Optional[str] = None) -> None:
        if not _is_text(activation_identifier):
            raise _mistake("activation_identifier", activation_identifier, "a str or None")
        if not callable(license_key) and _pair(license_key) is None:
            raise _mistake(
                "license_key", license_key, "None, a str, a pair (key, activation) or a callable"
            )
        self._given = license_key
        self._activation_identifier = activation_identifier or ""
        self.trouble = ""  # why the callable's last answer was no licence

    def read(self) -> tuple[str, str]:
        """(key, activation identifier), "" for what there is not; a callable is called here, once.

        If it raises or gives nonsense there is no key: the record is sent all the same.
        """
        given: object = self._given
        trouble = ""
        try:
            found = given() if callable(given) else given
            pair = _pair(found)
            if pair is None:
                trouble = "the licence callable gave a " + type(found).__name__
        # SystemExit: a licence check that ends the program has its own place to do so.
        except (Exception, SystemExit) as error:
            pair, trouble = None, "the licence callable raised " + type(error).__name__
        self.trouble = trouble
        key, activation_identifier = pair or NO_LICENCE
        return key, activation_identifier or (self._activation_identifier if key else "")


def _pair(given: object) -> Optional[tuple[str, str]]:
    pair: Any = given if issubclass(type(given), tuple) else (given, None)
    if len(pair) == 2 and _is_text(pair[0]) and _is_text(pair[1]):
        return pair[0] or "", pair[1] or ""
    return None


def _is_text(value: object) -> bool:
    # Not isinstance: a caller's object may raise when it is asked for its __class__.
    return value is None or issubclass(type(value), str)


def _mistake(field: str, value: object, allowed: str) -> EventError:
    # The type only: a licence key of the wrong type is a licence key all the same.
    return EventError("%s: got %s, allowed is %s" % (field, type(value).__name__, allowed), field)
