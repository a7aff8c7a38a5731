"""What a target is: seeds, mutations that know the format, and one execution that judges itself.

``run`` returns an outcome in words and raises for anything that must not happen, be it the code under test that
raised or a promise that did not hold. Targets are in modules of their own, imported when they are asked for.
"""

import importlib
import random

TARGETS = "envelope answer line book consent head message keyring".split()
SMALL = ("consent", "head", "message")


class Broken(AssertionError):
    """A promise that did not hold."""


def promise(holds: object, what: str) -> None:
    """Raise ``Broken`` unless it ``holds``; not an ``assert``, which ``-O`` removes."""
    if not holds:
        raise Broken(what)


class Target:
    """One entry point for hostile bytes."""

    name = ""

    def seeds(self) -> list[bytes]:
        """Inputs to begin with: what is really seen."""
        raise NotImplementedError

    def run(self, data: bytes) -> str:
        """The outcome of ``data``: its kind, and after ": " the details."""
        raise NotImplementedError

    def mutate(self, data: bytes, rnd: random.Random) -> bytes:
        """Another input, by somebody who knows the format."""
        raise NotImplementedError


def make(name: str) -> Target:
    """The target of that name; its module is imported only now."""
    module = importlib.import_module("." + (name if name not in SMALL else "small"), __package__)
    target: Target = (module.TARGET if name not in SMALL else module.TARGETS[name])()
    return target


def kind(outcome: str) -> str:
    """What is pinned of an outcome: its wording may change."""
    return outcome.partition(":")[0]


def wording(error: BaseException) -> str:
    """An error's class and text, numbers left out; its text must be short and printable."""
    text = str(error)
    promise(len(text) < 400 and text.isprintable(), "an error that nobody can print: %r" % text)
    bare = "".join("9" if char.isdigit() else char for char in text).replace("99", "9")
    return "%s: %s" % (type(error).__name__, bare)
