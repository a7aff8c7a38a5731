"""Where the demo plays: the collector, a state directory that is thrown away, and products that come and go.

The environment of the person who runs it (proxies, ``DO_NOT_TRACK``) is kept out. With a fault injected into a step the
collector behaves otherwise than that step asks, so its claim fails for a real reason.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from typing import TYPE_CHECKING, Any, NamedTuple, Optional

from ...client import Agent
from ...clock import Clock
from ...spool.store import Spool
from ...values import Core
from ..config_file import from_mapping

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType
    from typing import TypeVar

    from ...collector import Collector
    from ...spool.record import Record

    T = TypeVar("T")

API_KEY, LICENSE_KEY, ACTIVATION = "demo-api-key", "demo-license-key", "demo-desk-1"
EXIT_TIMEOUT_S = 0.25
# What a busy machine may need on top of a promise; without the promise it would be 10 s or more.
SLACK_S = 0.75

# Loads this package under its last name, so that a copy in a product does not load the product.
_CHILD = """
import importlib, json, sys
sys.path[:] = json.loads(sys.argv[1])
sys.path.insert(0, sys.argv[2])
importlib.import_module(sys.argv[3])
del sys.path[0]
raise SystemExit(importlib.import_module(sys.argv[3] + ".cli.demo.product").main())
"""


_PACKAGE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


class Differs(Exception):
    """A step is not what it claims."""


class Timed(NamedTuple):
    """How a process ended."""

    status: int
    stderr: str
    elapsed_s: float


class Stage:
    """One run of the demo."""

    def __init__(self, collector: Collector, inject: dict[int, Optional[str]]) -> None:
        self.collector = collector
        self._inject = inject  # steps that get this fault instead of what they ask for
        self._number = 0
        self.root = tempfile.mkdtemp(prefix="demo-")
        self.keyring: Optional[dict[str, Any]] = None  # in place of the collector's keys
        self.directory = ""
        self.owed_ids: set[str] = set()  # of usage events that wait on disk
        self.owed_texts: list[str] = []  # of licence records that wait on disk
        self.start_afresh()

    def __enter__(self) -> Stage:
        return self

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        shutil.rmtree(self.root, ignore_errors=True)

    def start_afresh(self) -> None:
        """An empty state directory: a step that failed must not fail the next one."""
        self.directory = os.path.join(self.root, "state-%d" % self._number)
        self.owed_ids, self.owed_texts = set(), []

    @contextlib.contextmanager
    def step(self, number: int) -> Iterator[None]:
        """One step: the collector starts it empty and honest."""
        self._number = number
        self.collector.clear()
        yield

    def server(self, fault: Optional[str]) -> None:
        """From now on the server behaves like this; None is honest."""
        self.collector.fault(self._inject.get(self._number, fault))

    # -- products --------------------------------------------------------------------------------

    def _document(self) -> dict[str, Any]:
        keys = [{"name": key["name"], "pem": key["public_key"]} for key in self.collector.keys]
        address = {"base_url": self.collector.url, "api_key": API_KEY}
        return {
            "vendor": "Acme",
            "product_name": "Demo Studio",
            "product_id": "42",
            "product_version": "5.2.5",
            "usage_consent": True,
            "state_dir": self.directory,
            "start_delay_s": 0,
            "exit_timeout_s": EXIT_TIMEOUT_S,
            "endpoints": [
                {"kind": "getkeymanager", "keys": self.keyring or keys, **address},
                {"kind": "reo", "domain": "acme.example", **address},
            ],
        }

    def product(self, license_key: Optional[str] = LICENSE_KEY, deliver: str = "thread") -> Agent:
        """A product that starts, in this process."""
        config = from_mapping({**self._document(), "deliver": deliver})
        activation = ACTIVATION if license_key else None
        return Agent(config, license_key, activation, environ={"NO_PROXY": "*"})

    @contextlib.contextmanager
    def process(self, act: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
        """A product in a process of its own, and what it said when it had done ``act``."""
        path, name = os.path.split(_PACKAGE)
        paths = [entry for entry in sys.path if isinstance(entry, str)]
        environ = {
            key: value
            for key, value in os.environ.items()
            if not key.upper().endswith("_PROXY") and key not in ("DO_NOT_TRACK", "AGENT_DEBUG")
        }
        child = subprocess.Popen(
            [sys.executable, "-c", _CHILD, json.dumps(paths), path, name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**environ, "NO_PROXY": "*"},
            encoding="utf-8",
        )
        assert child.stdin is not None and child.stdout is not None and child.stderr is not None
        try:
            with child.stdin, child.stdout, child.stderr:
                task = {
                    "config": self._document(),
                    "license": [LICENSE_KEY, ACTIVATION],
                    "act": act,
                }
                child.stdin.write(json.dumps(task) + "\n")
                child.stdin.flush()
                line = child.stdout.readline()
                if not line.endswith("\n"):
                    raise Differs("the product ended early: " + child.stderr.read().strip()[-300:])
                yield child, json.loads(line)
        finally:
            child.kill()
            child.wait()

    @staticmethod
    def end_of(child: subprocess.Popen[str]) -> Timed:
        """Wait for a product that ends by itself."""
        began = time.monotonic()
        assert child.stderr is not None
        try:
            status = child.wait(20)
        except subprocess.TimeoutExpired:
            raise Differs("the process did not end within 20 s") from None
        return Timed(status, child.stderr.read(), time.monotonic() - began)

    # -- what is seen ----------------------------------------------------------------------------

    def seen(self, endpoint: str) -> list[dict[str, Any]]:
        """What the collector took in, in order of arrival."""
        return [r for r in self.collector.records() if r["endpoint"] == endpoint]

    def on_disk(self) -> list[Record]:
        """What waits on disk, read afresh and counted by nobody's memory."""
        if not os.path.isdir(self.directory):
            return []
        core = Core(config=from_mapping(self._document()), clock=Clock(), report=None)
        return list(Spool(self.directory, core).records())

    def segments(self) -> list[str]:
        """The files that hold records."""
        found = os.listdir(self.directory) if os.path.isdir(self.directory) else []
        return [name for name in found if name.endswith(".seg")]

    def holds(self, text: str) -> bool:
        """Whether any file of the state directory holds ``text``."""
        for name in os.listdir(self.directory):
            with open(os.path.join(self.directory, name), "rb") as file:
                if text.encode("ascii") in file.read():
                    return True
        return False


def expect(claim: bool, otherwise: str) -> None:
    """Check one claim; ``otherwise`` says what was seen instead."""
    if not claim:
        raise Differs(otherwise)


def timed(act: Callable[[], T]) -> tuple[T, float]:
    """What ``act`` gave, and the seconds it took."""
    began = time.monotonic()
    return act(), time.monotonic() - began
