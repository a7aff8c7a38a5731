"""What people pass to a recording call: mistakes are named, odd content does no harm."""

from __future__ import annotations

import decimal
import fractions
from typing import Any, Callable

import pytest
from hypothesis import given, strategies as st
from support.endpoints import config

import agent
from agent import content
from agent.errors import EventError


def refusal(check: Callable[..., Any], *arguments: Any) -> EventError:
    with pytest.raises(EventError) as caught:
        check(*arguments)
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
    __index__ = Number.__float__


class bool_(Whole):
    """As NumPy calls it."""


@pytest.mark.parametrize(
    ("value", "text"),
    [
        *((50, "50"), (3.2, "3.2"), (-0.5, "-0.5"), (0, "0"), (1e300, "1e+300")),
        *((2**1000, str(2**1000)), (fractions.Fraction(1, 4), "0.25")),
        *((Number(1.5), "1.5"), (Whole(7), "7"), (decimal.Decimal("3.20"), "3.2")),
        *((float(text), None) for text in ("nan", "inf", "-inf")),
        *((decimal.Decimal(text), None) for text in ("nan", "sNaN", "-Infinity", "1e999999")),
        *((10**400, None), (10**100_000, None), (fractions.Fraction(10**400), None)),
        *((Number(ValueError()), None), (Whole(OSError()), None)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_number_and_its_text(value: Any, text: str | None) -> None:
    assert content.number(value, "value") == text


@pytest.mark.parametrize(
    "value",
    [True, False, "5", b"5", bytearray(b"5"), 1j, None, [1], {}, object(), int, bool_(1)]
    + [Number("x"), Number(TypeError()), Whole(TypeError()), Whole("5")],
    ids=lambda value: type(value).__name__,
)
def test_what_is_no_number(value: Any) -> None:
    error = refusal(content.number, value, "x")
    assert error.field == "x" and str(error).startswith("x: got ")


@given(st.floats(-(2.0**1022), 2.0**1022) | st.integers(-(2**1000), 2**1000))
def test_a_number_survives_its_text(value: float) -> None:
    text = content.number(value, "value")
    assert text is not None and type(value)(text) == value


def test_a_count() -> None:
    for value in (0, 1, 5, 2**53, Whole(3)):
        assert type(content.count(value)) is int
    for value in (-1, 2**53 + 1, True, 1.0, "1", None, Number(1), Whole(OSError())):
        assert refusal(content.count, value).field == "n"


@pytest.mark.parametrize("field", ["activity_type", "data_group"])
def test_a_name(field: str) -> None:
    assert content.name("EXPORT", field) == "EXPORT"
    assert len(content.name("x" * 10**7, field)) == 255
    for value in ("", " \t", None, 5, b"EXPORT", ["EXPORT"]):
        assert refusal(content.name, value, field).field == field


def test_a_user_id_and_its_kind() -> None:
    assert content.user_id("bob@example.org") == "bob@example.org"
    assert content.user_id("") is content.user_id(None) is None
    assert refusal(content.user_id, 5).field == "user_id"
    for kind in ("EMAIL", "SOCIAL", "LINKEDIN", "GITHUB", "USERNAME"):
        assert content.user_id_type(kind, True) == kind
    for value in ("email", "", "PHONE", None, 1, ["EMAIL"]):
        error = refusal(content.user_id_type, value, True)
        assert error.field == "user_id_type" and "LINKEDIN" in str(error)


def test_the_pseudonym_leaves_under_no_other_kind_than_its_own() -> None:
    assert content.user_id_type("USERNAME", False) == "USERNAME"
    error = refusal(content.user_id_type, "EMAIL", False)
    assert error.field == "user_id" and "EMAIL" in str(error)


def test_an_ip_address() -> None:
    for text in ("156.59.87.83", "::1", "2001:db8::1"):
        assert content.ip_addr(text) == text
    for value in (None, "", "localhost", "1.2.3", "256.1.1.1", "1.2.3.4\n", "fe80::1%lo"):
        assert content.ip_addr(value) is None, "content, no mistake"
    for other in (5, b"1.2.3.4", ["1.2.3.4"]):
        assert refusal(content.ip_addr, other).field == "ip_addr"


def test_a_text() -> None:
    assert content.text("a\0b\n") == "a\0b\n" and content.text("") is None
    exact = "x" * 32_768
    assert content.text(exact) == exact
    assert content.text("x" * 10**7) == "x" * 32_767 + "…", "cut, visibly"
    for value in (None, 5, b"x", ["x"]):
        assert refusal(content.text, value).field == "text"


@pytest.mark.parametrize(
    ("text", "kept"),
    [("\ud800", "\ufffd"), ("a\udfffb", "a\ufffdb"), ("\ud83d\ude00", "\U0001f600")],
)
def test_a_lone_surrogate_is_replaced(text: str, kept: str) -> None:
    assert content.text(text) == kept == content.name(text, "data_group")


@given(st.text(st.characters(codec=None), max_size=50))
def test_every_text_can_be_sent(text: str) -> None:
    assert len((content.text(text) or "").encode("utf-8")) <= 4 * max(len(text), 1)


@pytest.mark.parametrize("value", ["alice@acme.example", "KEY-1234", b"KEY-1234", ["KEY-1234"]])
def test_what_was_given_in_the_wrong_place_is_in_no_exception(value: Any) -> None:
    text = "%s %s" % (refusal(content.number, value, "value"), refusal(content.meta, value))
    text += str(refusal(content.count, value)) + str(refusal(content.user_id_type, value, True))
    assert len(str(refusal(content.count, 10**10_000))) < 200
    assert "alice" not in text and "1234" not in text


# --- the licence --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given_", "activation", "found"),
    [
        (None, None, ("", "")),
        (" key\n", "\tact ", ("key", "act")),
        (("key", "own"), "act", ("key", "own")),
        (("key", None), "act", ("key", "act")),
        ((None, "own"), "act", ("", "own")),
        (None, "act", ("", "")),
        (lambda: (" key ", None), "act", ("key", "act")),
        (lambda: 7, "act", ("", "")),
        ("k" * 9000, None, ("k" * 4095 + "…", "")),
    ],
)
def test_a_licence_as_it_may_be_given(given_: Any, activation: Any, found: Any) -> None:
    assert content.Licence(given_, activation).read() == found


def test_the_last_good_licence_stands_in_for_one_that_cannot_be_had() -> None:
    answers: list[Any] = [OSError(), "key", SystemExit(), 7, ("a", 3), None, OSError()]

    def ask() -> Any:
        answer = answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    licence = content.Licence(ask)
    found = [(licence.read()[0], bool(licence.trouble)) for _ in range(len(answers))]
    key = [("", True), ("key", False), ("key", True), ("key", True), ("key", True)]
    assert found == [*key, ("", False), ("", True)], "that there is none is an answer, too"


# --- odd classes --------------------------------------------------------------------------------


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


@pytest.mark.parametrize("name", [None, "set_usage_consent", "flush", "history", "set_license"])
def test_an_object_that_raises_when_asked_for_its_class_is_a_mistake_like_any_other(
    name: str | None,
) -> None:
    odd: Any = Unlike()
    if name is not None:
        with agent.Agent(config(), environ={}) as product, pytest.raises(EventError):
            getattr(product, name)(odd)
        return
    checks: list[Any] = [content.text, content.user_id, content.ip_addr, content.meta]
    checks += [content.count, content.Licence, lambda it: content.Licence(("k", it))]
    checks += [lambda it: content.user_id_type(it, True), lambda it: content.Licence("k", it)]
    checks += [lambda it: content.name(it, "field"), lambda it: content.number(it, "field")]
    for check in checks:
        refusal(check, odd)


def test_such_an_object_as_a_setting_is_a_mistake_like_any_other() -> None:
    for field in agent.Config.fields:
        with pytest.raises(agent.ConfigError):
            config(**{field: Unlike()})


def test_a_text_of_a_class_that_raises_is_a_text() -> None:
    assert content.ip_addr(Text("1.2.3.4")) == "1.2.3.4"
    assert content.user_id_type(Text("EMAIL"), True) == "EMAIL"
    for found in (content.name(Text("x"), "field"), content.text(Text("x"))):
        assert type(found) is str and found == "x"
    assert content.Licence(Text(" k "), Text("a")).read() == ("k", "a")
