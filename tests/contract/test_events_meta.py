"""``meta`` takes what people really pass: it is encoded at once, bounded, and never raises."""

import collections
import contextlib
import datetime
import decimal
import enum
import itertools
import json
import pathlib
import threading
import time
import tracemalloc
import types
import uuid
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from agent import content, lines


def encoded(meta: Any) -> Any:
    """What a server would read; the bound on its size holds always."""
    found = content.meta(meta)
    text = lines.dumps(found)
    assert len(text) <= 16 * 1024
    assert json.loads(text) == found
    return found


def one(value: Any) -> Any:
    return encoded({"value": value})["value"]


class Colour(enum.Enum):
    RED = 1


class Level(enum.IntEnum):
    LOW = 3


class Scalar:
    """Of NumPy's kind: it gives what Python has for it."""

    def __init__(self, value: Any) -> None:
        self.item = lambda: value

    item: Any = None


@pytest.mark.parametrize(
    ("value", "found"),
    [
        *((None, None), (True, True), (5, 5), (1.5, 1.5), (2**63 - 1, 2**63 - 1), (Level.LOW, 3)),
        *((Scalar(True), True), (Scalar(0.5), 0.5), (Scalar(7), 7)),
        *((2**64, "18446744073709551616"), (float("nan"), None), (float("inf"), None)),
        *(("text", "text"), ("\ud800", "\ufffd"), (b"a\xff", [97, 255])),
        *((decimal.Decimal("1.20"), "1.20"), (datetime.date(2024, 2, 29), "2024-02-29")),
        *((Colour.RED, "Colour.RED"), (uuid.UUID(int=1), str(uuid.UUID(int=1)))),
        *((pathlib.PurePosixPath("/a/b"), "/a/b"), (complex(1, 2), "(1+2j)")),
        *(((1, 2), [1, 2]), ({1}, [1]), (range(3), [0, 1, 2]), (collections.deque([1]), [1])),
        *(({"a": 1}.items(), [["a", 1]]), (types.MappingProxyType({"a": 1}), {"a": 1})),
        *((ValueError("reason"), "reason"), (itertools.count(), "count(0)"), (print, str(print))),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_value_and_what_becomes_of_it(value: Any, found: Any) -> None:
    assert one(value) == found and type(one(value)) is type(found)


def test_names_become_text() -> None:
    found = encoded({1: 1, None: 2, False: 3, (1, "a"): 6})
    assert found == {"1": 1, "None": 2, "False": 3, "(1, 'a')": 6}
    assert content.meta(None) is None and encoded({}) == {}


@pytest.mark.parametrize("wrap", [lambda x: {"a": x}, lambda x: [x], lambda x: [x, x, {"b": x}]])
def test_deep_nesting_and_cycles_are_cut_visibly(wrap: Any) -> None:
    value: Any = 1
    for _ in range(100):
        value = wrap(value)
    text = lines.dumps(encoded({"deep": value}))
    assert "\\u2026" in text or "_truncated" in text
    cycle: dict[str, Any] = {"many": []}
    cycle["self"], cycle["many"] = cycle, [cycle] * 300
    assert "_truncated" in lines.dumps(encoded(cycle))


def test_what_is_long_is_cut_visibly() -> None:
    many = list(range(257))
    assert one(many[:-1]) == many[:-1] and one(many) == [*many[:-1], "…"]
    found = one({str(number): 0 for number in many})
    assert found.pop("_truncated") is True and len(found) == 256
    assert one("x" * 4096) == "x" * 4096
    assert one("x" * 4097) == "x" * 4095 + "…"
    assert list(encoded({"k" * 5000: 1})) == ["k" * 4095 + "…"]


@pytest.mark.parametrize("char", ["x", "\0", "\u00e9", "\U0001f600", '"'])
def test_the_whole_is_cut_visibly(char: str) -> None:
    found = encoded({"%s%d" % (char, number): char * 1000 for number in range(100)})
    assert found["_truncated"] is True and len(found) > 1
    nested = encoded({"list": [[char * 100] * 200] * 200, "after": 1})
    assert "…" in nested["list"] and ("after" in nested or nested["_truncated"])
    items: Any = ([], {}, [[]], [{}, {}])
    for item in items:
        encoded({"list": [[[item] * 256] * 256] * 256})


def test_ten_megabytes_and_ten_million_elements_cost_little() -> None:
    text, data = "\u00e9" * 10**7, bytes(10**7)
    many, table = [0] * 10**7, dict.fromkeys(range(10**5), "\u00e9" * 10**4)
    tracemalloc.start()
    began = time.perf_counter()
    encoded({"text": text, "data": data, text: many, "view": memoryview(data), "table": table})
    assert time.perf_counter() - began < 1
    assert tracemalloc.get_traced_memory()[1] < 2_000_000
    tracemalloc.stop()


def raising(*arguments: Any) -> Any:
    raise OSError("evil")


def evil_types() -> list[type]:
    """A class for every way to misbehave: each of its methods raises, or gives a wrong type or no end."""
    names = "__str__ __repr__ __iter__ __len__ __float__ __index__ __hash__ __eq__ __bool__".split()
    names += ["item", "keys", "items", "__getattribute__"]
    made: list[dict[str, Any]] = [{name: raising for name in names}]
    made += [{name: how} for name in names for how in (raising, lambda *_: 5, lambda *_: None)]
    made += [
        {"__len__": len, "__iter__": lambda _: itertools.count()},
        {"__class__": property(raising)},
    ]
    odd = [type("Evil", (base,), made[0]) for base in (dict, list, str, int, float)]
    return odd + [type("Evil", (), methods) for methods in made]


@pytest.mark.parametrize("kind", evil_types(), ids=lambda kind: "")
def test_an_evil_object_does_no_harm(kind: type) -> None:
    evil = object.__new__(kind) if kind.__base__ is object else kind()
    assert encoded({"before": 1, "evil": evil, "after": 2})["after"] == 2
    encoded({"evil": [evil]})
    if hasattr(kind, "keys"):
        assert type(content.meta(evil)) is dict


def test_a_dictionary_that_changes_meanwhile() -> None:
    class Growing:
        def __str__(self) -> str:
            table[len(table)] = 1
            return "grown"

    table: dict[Any, Any] = {"grow": Growing()}
    assert encoded(table) == {"grow": "grown", "_truncated": True}


def test_near_the_recursion_limit() -> None:
    """A host that calls from deep down gets less of its value, or its own RecursionError, never a torn one."""
    found = []

    def deeper() -> None:
        with contextlib.suppress(RecursionError):
            deeper()
        with contextlib.suppress(RecursionError):
            found.append(content.meta({"a": {"b": [{"c": threading.Lock}]}}))

    deeper()
    assert all(json.loads(lines.dumps(meta)) == meta for meta in found)
    assert found[-1] == {"a": {"b": [{"c": str(threading.Lock)}]}}


scalars = st.none() | st.floats() | st.binary(max_size=30) | st.text(st.characters(codec=None))
scalars |= st.sampled_from([*Colour, object(), range(10**9), "x" * 5000, 10**4000])
names = st.text(max_size=5) | st.integers() | st.tuples(st.integers())


def containers(inner: Any) -> Any:
    return st.lists(inner).map(lambda some: some * 20) | st.dictionaries(names, inner)


@settings(max_examples=40)
@given(st.dictionaries(names, st.recursive(scalars, containers, max_leaves=60), max_size=20))
def test_whatever_is_in_it(meta: Any) -> None:
    encoded(meta)
