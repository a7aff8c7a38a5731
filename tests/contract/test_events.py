"""What people pass to a recording call: mistakes are named, odd content does no harm."""

from __future__ import annotations

import decimal
import fractions
import functools
from typing import Any, Callable

import pytest
from hypothesis import given, strategies as st
from support.endpoints import config

import agent
from agent import content
from agent.errors import EventError


class Number:
    """A number of some library."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __float__(self) -> Any:
        if isinstance(self.value, Exception):
            raise self.value
        return self.value


class Whole(Number):
    __index__ = Number.__float__


class bool_(Whole):
    """As NumPy calls it."""


class Unlike:
    """An object that does not let itself be asked what it is: a broken proxy, a lazy import."""

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        raise RuntimeError


class Text(str):
    def __str__(self) -> str:
        raise RuntimeError

    __len__ = __getitem__ = encode = strip = __eq__ = __str__  # type: ignore[assignment]
    __hash__ = str.__hash__


a_number = functools.partial(content.number, field="value")
a_name = functools.partial(content.name, field="data_group")
a_kind = functools.partial(content.user_id_type, has_user_id=True)
an_activation = functools.partial(content.Licence, "key")

# --- mistakes -----------------------------------------------------------------------------------

CANARY = "KEY-1234"
NO_NUMBERS = [True, False, "5", CANARY, b"5", bytearray(b"5"), 1j, None, [1], {}, object(), int]
NO_NUMBERS += [bool_(1), Number("x"), Number(TypeError()), Whole(TypeError()), Whole("5")]
MISTAKES: list[tuple[Callable[[Any], Any], str, list[Any]]] = [
    (a_number, "value", NO_NUMBERS),
    (content.count, "n", [-1, 2**53 + 1, 10**10_000, True, 1.0, "1", None, Number(1)]),
    (a_name, "data_group", ["", " \t", None, 5, b"EXPORT", [CANARY]]),
    (content.text, "text", [None, 5, b"x", [CANARY]]),
    (content.user_id, "user_id", [5, b"bob", [CANARY]]),
    (a_kind, "user_id_type", ["email", "", CANARY, "x" * 10**6, None, 1, ["EMAIL"]]),
    (content.ip_addr, "ip_addr", [5, b"1.2.3.4", [CANARY]]),
    (content.meta, "meta", [CANARY, 5, [], [("a", 1)], {1}, b"{}", object(), True]),
    (content.Licence, "license_key", [5, [CANARY], (CANARY,), (CANARY, 5), b"k"]),
    (an_activation, "activation_identifier", [5, (CANARY, CANARY)]),
]


@pytest.mark.parametrize(("check", "field", "values"), MISTAKES)
def test_a_mistake_names_its_field_and_repeats_nothing(check: Any, field: str, values: Any) -> None:
    for value in [*values, Unlike()]:
        with pytest.raises(EventError) as caught:
            check(value)
        assert caught.value.field == field and str(caught.value).startswith(field + ": got ")
        assert CANARY not in str(caught.value) and len(str(caught.value)) < 200


@pytest.mark.parametrize("name", ["set_usage_consent", "flush", "history", "set_license"])
def test_an_object_that_raises_when_asked_for_its_class_is_a_mistake_like_any_other(
    name: str,
) -> None:
    with agent.Agent(config(), environ={}) as product, pytest.raises(EventError):
        getattr(product, name)(Unlike())
    for field in agent.Config.fields:
        with pytest.raises(agent.ConfigError):
            config(**{field: Unlike()})


# --- content ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "text"),
    [
        *((50, "50"), (3.2, "3.2"), (-0.5, "-0.5"), (0, "0"), (1e300, "1e+300")),
        *((2**1000, str(2**1000)), (fractions.Fraction(1, 4), "0.25")),
        *((Number(1.5), "1.5"), (Whole(7), "7"), (decimal.Decimal("3.20"), "3.20")),
        *((decimal.Decimal(text), text) for text in ("0." + "123456789" * 9, "1e+5", "-0.0")),
        (decimal.Decimal("1." + "3" * 9000), "1." + "3" * 299),
        *((float(text), None) for text in ("nan", "inf", "-inf")),
        *((decimal.Decimal(text), None) for text in ("nan", "sNaN", "-Infinity", "1e999999")),
        *((10**400, None), (10**100_000, None), (fractions.Fraction(10**400), None)),
        *((Number(ValueError()), None), (Whole(OSError()), None)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_number_and_its_text(value: Any, text: str | None) -> None:
    assert content.number(value, "value") == text


def test_what_is_kept() -> None:
    assert [content.count(value) for value in (0, 5, 2**53, Whole(3))] == [0, 5, 2**53, 3]
    assert a_name("EXPORT") == "EXPORT" and len(a_name("x" * 10**7)) == 255
    assert content.user_id("bob@example.org") == "bob@example.org"
    assert content.text("a\0b\n") == "a\0b\n" and content.text("x" * 32_768) == "x" * 32_768
    assert content.text("x" * 10**7) == "x" * 32_767 + "…", "cut, visibly"
    surrogates = {"\ud800": "\ufffd", "a\udfffb": "a\ufffdb", "\ud83d\ude00": "\U0001f600"}
    for text, kept in surrogates.items():
        assert content.text(text) == kept == a_name(text)
    for text in ("156.59.87.83", "::1", "2001:db8::1"):
        assert content.ip_addr(text) == text
    for kind in ("EMAIL", "SOCIAL", "LINKEDIN", "GITHUB", "USERNAME"):
        assert a_kind(kind) == kind


def test_what_cannot_be_sent_is_content_and_no_mistake() -> None:
    assert content.user_id("") is content.user_id(None) is content.text(" ") is None
    for value in (None, "", "localhost", "1.2.3", "256.1.1.1", "1.2.3.4\n", "fe80::1%lo"):
        assert content.ip_addr(value) is None


@given(st.text(st.characters(codec=None), max_size=50))
def test_every_text_can_be_sent(text: str) -> None:
    assert len((content.text(text) or "").encode("utf-8")) <= 4 * max(len(text), 1)


def test_a_text_of_a_class_that_raises_is_a_text() -> None:
    assert content.ip_addr(Text("1.2.3.4")) == "1.2.3.4"
    assert a_kind(Text("EMAIL")) == "EMAIL"
    for found in (a_name(Text("x")), content.text(Text("x"))):
        assert type(found) is str and found == "x"
    assert content.Licence(Text(" k "), Text("a")).read() == ("k", "a")


# --- the licence --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given_", "activation", "found"),
    [
        *((None, None, ("", "")), (" key\n", "\tact ", ("key", "act")), (None, "act", ("", ""))),
        *((("key", "own"), "act", ("key", "own")), (("key", None), "act", ("key", "act"))),
        *(((None, "own"), "act", ("", "own")), (lambda: (" key ", None), "act", ("key", "act"))),
        *((lambda: 7, "act", ("", "")), ("k" * 9000, None, ("k" * 4095 + "…", ""))),
    ],
)
def test_a_licence_as_it_may_be_given(given_: Any, activation: Any, found: Any) -> None:
    assert content.Licence(given_, activation).read() == found
