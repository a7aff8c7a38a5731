"""Licence telemetry does not depend on the activation state: whatever the licence is, the same requests go out."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st
from support.agent import Desk, desk, fields

LICENCE_FIELDS = ("license_key", "activation_identifier")


def raising() -> Any:
    raise RuntimeError("the licence server of the product is down")


def leaving() -> Any:
    raise SystemExit("no licence, no product")


class Odd(tuple):  # type: ignore[type-arg]
    """A pair that cannot be looked at."""

    def __len__(self) -> int:
        raise ValueError("odd")


# What a product may hand over: (what it is, the licence, the key that must be sent).
STATES: list[tuple[str, Any, str]] = [
    ("a valid key", ("demo-license-key", "activation-1"), "demo-license-key"),
    ("a key without activation", "demo-license-key", "demo-license-key"),
    ("a wrong key", ("stolen", "activation-1"), "stolen"),
    ("an empty key", "", ""),
    ("an activation without a key", (None, "activation-1"), ""),
    ("none", None, ""),
    ("a callable", lambda: "demo-license-key", "demo-license-key"),
    ("a callable that gives a pair", lambda: ("demo-license-key", "a"), "demo-license-key"),
    ("a callable that gives none", lambda: None, ""),
    ("a callable that raises", raising, ""),
    ("a callable that ends the program", leaving, ""),
    ("a callable that gives a number", lambda: 7, ""),
    ("a callable that gives an object", object, ""),
    ("a callable that gives an odd pair", lambda: Odd(("a", "b")), ""),
    ("text that no server expects", "\ud800 \x00&api_key=x%00\n" + "k" * 9000, "? "),
]
NAMES = [name for name, _, _ in STATES]
LICENCES = {name: given for name, given, _ in STATES}

RECORDINGS: dict[str, Any] = {
    "call_home": lambda product: product.call_home(),
    "value": lambda product: product.record_value(3.2, data_group="export-seconds"),
    "point": lambda product: product.record_point(1, 2, data_group="canvas"),
    "text": lambda product: product.record_text("opengl", data_group="renderer"),
}


@pytest.fixture(scope="module")
def at() -> Iterator[Desk]:
    with tempfile.TemporaryDirectory() as directory, desk(Path(directory)) as found:
        yield found


def requests_of(at: Desk, initial: str, steps: list[tuple[str, str]]) -> list[dict[str, str]]:
    """The licence requests of one run from an empty state directory, each with all its fields."""
    at.collector.clear()
    with tempfile.TemporaryDirectory() as directory:
        told = at.agent(license_key=LICENCES[initial], only="licence", state_dir=directory)
        with told as product:
            for what, which in steps:
                if what == "set":
                    product.set_license(LICENCES[which])
                else:
                    assert RECORDINGS[what](product), what
            product.flush()
            identifier = product.user_identifier
    found = [fields(request) for request in at.collector.requests()]
    assert all(form.pop("user_identifier") == identifier for form in found)
    return found


def without_licence(found: list[dict[str, str]]) -> list[dict[str, str]]:
    return [{n: v for n, v in form.items() if n not in LICENCE_FIELDS} for form in found]


def licences(at: Desk) -> list[tuple[str, str]]:
    """What was sent as such."""
    sent = [fields(request) for request in at.collector.requests()]
    return [(form["license_key"], form["activation_identifier"]) for form in sent]


steps_of = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(sorted(RECORDINGS)), st.just("")),
        st.tuples(st.just("set"), st.sampled_from(NAMES)),
    ),
    min_size=1,
    max_size=6,
)


@settings(max_examples=40)
@given(initial=st.sampled_from(NAMES), steps=steps_of)
def test_the_requests_sent_do_not_depend_on_the_activation_state(
    at: Desk, initial: str, steps: list[tuple[str, str]]
) -> None:
    found = requests_of(at, initial, steps)
    unlicensed = [("set", "none") if what == "set" else (what, which) for what, which in steps]
    expected = requests_of(at, "none", unlicensed)
    assert without_licence(found) == without_licence(expected)
    # Present in every one of them, and empty where there is none.
    assert all("license_key" in form and "activation_identifier" in form for form in found)
    assert all(form["license_key"] == "" for form in expected)


@pytest.mark.parametrize("name, given_licence, key", STATES, ids=NAMES)
def test_each_state_is_reported_with_the_key_there_is(
    at: Desk, name: str, given_licence: Any, key: str
) -> None:
    (form,) = requests_of(at, name, [("call_home", "")])
    assert form["text_data"] == "CALL HOME"
    if key == "? ":
        assert form["license_key"] and len(form["license_key"]) <= 4096
    else:
        assert form["license_key"] == key


def test_a_callable_is_asked_once_for_each_record(at: Desk, tmp_path: Path) -> None:
    at.collector.clear()
    asked: list[int] = []

    def ask() -> tuple[str, str]:
        asked.append(1)
        return "key-%d" % len(asked), ""

    with at.agent(license_key=ask, only="licence", state_dir=tmp_path) as product:
        product.call_home()
        product.record_text("x", data_group="g")
        product.preview()
        product.flush()
        product.flush()
    assert licences(at) == [("key-1", ""), ("key-2", "")] and len(asked) == 2


def test_the_last_good_licence_is_taken_where_the_callable_fails(at: Desk, tmp_path: Path) -> None:
    answers: list[Any] = [raising, lambda: ("good", "a"), raising, leaving, lambda: 7, lambda: None]
    at.collector.clear()
    licence: Any = lambda: answers.pop(0)()  # noqa: E731 - as a vendor writes it
    with at.agent(license_key=licence, only="licence", state_dir=tmp_path) as product:
        while answers:
            assert product.call_home()
        product.set_license(raising)  # another licence, of which nothing good is known
        assert product.call_home()
        product.flush()
    assert licences(at) == [("", ""), *[("good", "a")] * 4, ("", ""), ("", "")]


def test_a_change_of_licence_changes_nothing_already_recorded(at: Desk, tmp_path: Path) -> None:
    at.collector.clear()
    with at.agent(license_key=("old", "a-old"), only="licence", state_dir=tmp_path) as product:
        product.call_home()
        product.set_license("new", "a-new")
        product.call_home()
        product.set_license(("newest", None))
        product.call_home()
        product.flush()
    assert licences(at) == [("old", "a-old"), ("new", "a-new"), ("newest", "")]
