"""What people pass to a recording call: mistakes are named, odd content does no harm."""

from __future__ import annotations

import decimal
import fractions
import ipaddress
from pathlib import Path
from typing import Any, Callable

import pytest
from hypothesis import given, strategies as st
from support.agent import FakeClock, config

import agent
from agent import events
from agent.errors import EventError


def refusal(check: Callable[..., Any], *arguments: Any) -> EventError:
    with pytest.raises(EventError) as caught:
        check(*arguments)
    assert "allowed is" in str(caught.value)
    return caught.value


class Number:
    """A number of some library."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __float__(self) -> Any:
        if isinstance(self.value, Exception):
            raise self.value
        return self.value


class Whole(Number):
    def __index__(self) -> Any:
        return Number.__float__(self)


class bool_(Whole):
    """As NumPy calls it."""


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (50, "50"),
        (3.2, "3.2"),
        (-0.5, "-0.5"),
        (0, "0"),
        (1e300, "1e+300"),
        (2**1000, str(2**1000)),
        (decimal.Decimal("3.2"), "3.2"),
        (fractions.Fraction(1, 4), "0.25"),
        (Number(1.5), "1.5"),
        (Whole(7), "7"),
        (float("nan"), None),
        (float("inf"), None),
        (float("-inf"), None),
        (10**400, None),
        (10**100_000, None),
        (decimal.Decimal("nan"), None),
        (decimal.Decimal("sNaN"), None),
        (decimal.Decimal("1e999999"), None),
        (fractions.Fraction(10**400), None),
        (Number(ValueError()), None),
        (Whole(OSError()), None),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_number_and_its_text(value: Any, text: str | None) -> None:
    assert events.number(value, "value") == text


@pytest.mark.parametrize(
    "value",
    [True, False, "5", b"5", bytearray(b"5"), 1j, None, [1], {}, object(), int, bool_(1)]
    + [Number("x"), Number(TypeError()), Whole(TypeError()), Whole("5")],
    ids=lambda value: type(value).__name__,
)
def test_what_is_no_number(value: Any) -> None:
    error = refusal(events.number, value, "x")
    assert error.field == "x" and str(error).startswith("x: got ")


@given(st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**1000), 2**1000))
def test_a_number_survives_its_text(value: float) -> None:
    text = events.number(value, "value")
    assert text is not None and type(value)(text) == value


@pytest.mark.parametrize("value", [1, 5, 2**53, Whole(3)])
def test_a_count(value: Any) -> None:
    found = events.count(value)
    assert type(found) is int and found >= 1


@pytest.mark.parametrize(
    "value", [0, -1, 2**53 + 1, True, 1.0, "1", None, Number(1), Whole(OSError())]
)
def test_what_is_no_count(value: Any) -> None:
    assert refusal(events.count, value).field == "n"


@pytest.mark.parametrize("field", ["activity_type", "data_group"])
def test_a_name(field: str) -> None:
    assert events.name("EXPORT", field) == "EXPORT"
    assert len(events.name("x" * 10**7, field)) == 255
    for value in ("", " \t", None, 5, b"EXPORT", ["EXPORT"]):
        assert refusal(events.name, value, field).field == field


def test_a_user_id() -> None:
    assert events.user_id("bob@example.org") == "bob@example.org"
    for value in ("", None, 5, b"bob"):
        assert refusal(events.user_id, value).field == "user_id"


def test_the_kinds_of_user_ids_are_a_closed_set() -> None:
    for kind in ("EMAIL", "SOCIAL", "LINKEDIN", "GITHUB", "USERNAME"):
        assert events.user_id_type(kind) == kind
    for value in ("email", "", "PHONE", None, 1, ["EMAIL"]):
        error = refusal(events.user_id_type, value)
        assert error.field == "user_id_type" and "LINKEDIN" in str(error)


def test_an_ip_address() -> None:
    for text in ("156.59.87.83", "::1", "2001:db8::1"):
        assert events.ip_addr(text) == text
        assert events.ip_addr(ipaddress.ip_address(text)) == text
    assert events.ip_addr(None) is None
    for value in ("", "localhost", "1.2.3", "256.1.1.1", "1.2.3.4\n", "fe80::1%lo", 5, b"1.2.3.4"):
        assert refusal(events.ip_addr, value).field == "ip_addr"
    assert refusal(events.ip_addr, ipaddress.ip_network("10.0.0.0/8")).field == "ip_addr"


def test_a_text() -> None:
    assert events.text("") == "" and events.text("a\0b\n") == "a\0b\n"
    for value in (None, 5, b"x", ["x"]):
        assert refusal(events.text, value).field == "text"


def test_a_text_that_is_too_long_is_cut_visibly() -> None:
    exact = "x" * 32_768
    assert events.text(exact) == exact
    assert events.text(exact + "y") == "x" * 32_767 + "…"
    assert len(events.text("x" * 10**7)) == 32_768


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("\ud800", "\ufffd"),
        ("a\udfffb", "a\ufffdb"),
        ("\ud800\ud800x", "\ufffd\ufffdx"),
        ("\ud83d\ude00", "\U0001f600"),
        ("caf\u00e9 \U0001f600", "caf\u00e9 \U0001f600"),
    ],
)
def test_a_lone_surrogate_is_replaced(text: str, kept: str) -> None:
    assert events.text(text) == kept == events.name(text, "data_group")


@given(st.text(st.characters(codec=None), max_size=50))
def test_every_text_can_be_sent(text: str) -> None:
    assert len(events.text(text).encode("utf-8")) <= 4 * max(len(text), 1)


def test_a_str_with_methods_of_its_own() -> None:
    class Odd(str):
        def __str__(self) -> str:
            raise RuntimeError

        __len__ = __getitem__ = encode = strip = __str__  # type: ignore[assignment]

    for found in (events.text(Odd("x")), events.name(Odd("x"), "data_group")):
        assert type(found) is str and found == "x"


def test_an_exception_does_not_repeat_everything() -> None:
    assert len(str(refusal(events.user_id_type, "x" * 10**6))) < 200
    assert len(str(refusal(events.number, "x" * 10**6, "value"))) < 200
    assert len(str(refusal(events.count, 10**10_000))) < 200


@pytest.mark.parametrize("value", ["alice@acme.example", "KEY-1234", b"KEY-1234", ["KEY-1234"]])
def test_what_was_given_in_the_wrong_place_is_in_no_exception(value: Any) -> None:
    text = "%s %s" % (refusal(events.ip_addr, value), refusal(events.number, value, "value"))
    text += str(refusal(events.meta, value)) + str(refusal(events.count, value))
    assert "alice" not in text and "1234" not in text


class Unlike:
    """An object that does not let itself be asked what it is: a broken proxy, a lazy import."""

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        raise RuntimeError


class Text(str):
    def __str__(self) -> str:
        raise RuntimeError

    def __eq__(self, other: object) -> bool:
        raise RuntimeError

    __hash__ = str.__hash__


@pytest.mark.parametrize(
    "call",
    [
        lambda product: product.record_text(Unlike(), data_group="g"),
        lambda product: product.record_text("x", data_group=Unlike()),
        lambda product: product.record_value(Unlike(), data_group="g"),
        lambda product: product.record_point(1, Unlike(), data_group="g"),
        lambda product: product.track(Unlike()),
        lambda product: product.track("X", user_id=Unlike()),
        lambda product: product.track("X", user_id_type=Unlike()),
        lambda product: product.track("X", ip_addr=Unlike()),
        lambda product: product.track("X", meta=Unlike()),
        lambda product: product.count(Unlike()),
        lambda product: product.count("X", n=Unlike()),
        lambda product: product.set_license(Unlike()),
        lambda product: product.set_license(("k", Unlike())),
        lambda product: product.set_license("k", Unlike()),
        lambda product: product.set_usage_consent(Unlike()),
        lambda product: product.flush(Unlike()),
        lambda product: product.history(Unlike()),
    ],
)
def test_an_object_that_raises_when_asked_for_its_class_is_a_mistake_like_any_other(
    call: Callable[[agent.Agent], object], tmp_path: Path
) -> None:
    settings = config("http://127.0.0.1:9", (), tmp_path / "state")
    with agent.Agent(settings, clock=FakeClock()) as product, pytest.raises(EventError):
        call(product)


def test_such_an_object_in_the_meta_is_written_as_its_type(tmp_path: Path) -> None:
    assert events.meta({"a": Unlike(), "b": [Unlike()]}) == {"a": "<Unlike>", "b": ["<Unlike>"]}


def test_a_text_of_a_class_that_raises_is_a_text() -> None:
    assert events.ip_addr(Text("1.2.3.4")) == "1.2.3.4"
    assert events.user_id_type(Text("EMAIL")) == "EMAIL"
    assert events.name(Text("x"), "field") == events.text(Text("x")) == "x"


def test_such_an_object_as_a_setting_is_a_mistake_like_any_other() -> None:
    for field in agent.Config.__slots__[:4]:
        with pytest.raises(agent.ConfigError):
            config("http://127.0.0.1:9", (), None, **{field: Unlike()})
