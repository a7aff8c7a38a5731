"""An agent, a collector and a clock that belong together, for the tests of the whole.

The collector is a real one on loopback; time is what ``FakeClock`` says, for both sides; a background worker is
replaced by ``pass_`` and ``work_until`` where a test needs to say when something happens.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Optional
from urllib.parse import parse_qs

from support.endpoints import ACME
from support.spool import START, FakeClock

import agent
from agent.collector import Collector
from agent.delivery import DONE, MORE

__all__ = ["START", "FakeClock"]  # shared with the tests of the spool

ROOT = Path(__file__).resolve().parents[2]


def config(url: str, keys: Any, state_dir: Any, **changes: Any) -> agent.Config:
    """A product with a licence server and a usage collector, both at ``url``; ``only`` one of them."""
    only, of = changes.pop("only", None), changes.pop("package", agent)
    api_key = changes.pop("api_key", "demo-api-key")
    domain = changes.pop("domain", "acme.example")
    endpoints: tuple[Any, ...] = (
        of.GetKeyManager(base_url=url, api_key=api_key, keys=keys, allow_unsigned=not keys),
        of.Reo(base_url=url, api_key=api_key, domain=domain),
    )
    if only is not None:
        endpoints = (endpoints[0 if only == "licence" else 1],)
    settings: dict[str, Any] = {
        **ACME,
        "endpoints": endpoints,
        "usage_consent": True,
        "state_dir": state_dir,
        "deliver": "manual",
        "start_delay_s": 0,
    }
    return of.Config(**{**settings, **changes})  # type: ignore[no-any-return]


class Desk:
    """A collector, a state directory and a clock."""

    durability = "process"  # syncs take most of a test's time; the power goes in few of them

    def __init__(self, collector: Collector, state_dir: Path, clock: FakeClock) -> None:
        self.collector, self.state_dir, self.clock = collector, state_dir, clock

    def config(self, **changes: Any) -> agent.Config:
        changes = {"state_dir": self.state_dir, "durability": self.durability, **changes}
        keys = changes.pop("keys", self.collector.public_keys)
        return config(self.collector.url, keys, **changes)

    @contextmanager
    def agent(
        self,
        *,
        license_key: Any = ("demo-license-key", "activation-1"),
        on_outcome: Optional[Callable[[agent.Outcome], None]] = None,
        clock: Any = None,
        transport: Any = None,
        environ: Any = None,
        **changes: Any,
    ) -> Iterator[agent.Agent]:
        """A run of the product: closed at the end."""
        product = agent.Agent(
            self.config(**changes),
            license_key,
            on_outcome=on_outcome,
            clock=clock or self.clock,
            transport=transport,
            environ=environ,
        )
        with product:
            yield product

    def seen(self) -> int:
        """Requests so far, swallowed ones too."""
        return len(self.collector.requests())

    def bodies(self) -> list[str]:
        return [request["body"] for request in self.collector.requests()]

    def texts(self) -> list[str]:
        """The texts of the licence records taken in, in order of arrival."""
        return [
            record["fields"].get("text_data", "")
            for record in self.collector.records()
            if record["endpoint"] == "getkeymanager"
        ]

    def activities(self) -> list[str]:
        """What the usage collector was told of, in the order of names."""
        told = [r["fields"] for r in self.collector.records() if "data_group" not in r["fields"]]
        return sorted(fields["activity_type"] for fields in told)

    def sums(self) -> Counter[str]:
        """What the usage collector was told of counters, by activity; each event once."""
        told = {
            r["fields"]["event_id"]: r["fields"]
            for r in self.collector.records()
            if "count" in r["fields"]
        }
        found: Counter[str] = Counter()
        for fields in told.values():
            found[fields["activity_type"]] += fields["count"]
        return found


@contextmanager
def desk(state_dir: Path, clock: Optional[FakeClock] = None, **options: Any) -> Iterator[Desk]:
    clock = clock or FakeClock()
    with Collector(clock=clock, **options) as collector:
        yield Desk(collector, state_dir, clock)


def endpoint(product: agent.Agent, name: str = "getkeymanager") -> dict[str, Any]:
    """One endpoint's part of ``status()``."""
    found: dict[str, Any] = next(e for e in product.status()["endpoints"] if e["name"] == name)
    return found


def pass_(product: agent.Agent) -> None:
    """What the worker would do now: passes that skip no wait, until nothing more can be sent."""
    came = MORE
    while came == MORE:
        came = product._delivery.run()
    assert came == DONE


def work_until(product: agent.Agent, clock: FakeClock, at: float) -> list[float]:
    """What the worker would do until then: passes whenever one is due; the waits between them."""
    waits: list[float] = []
    while True:
        wait_s = product._delivery.due_in_s()
        if wait_s is None or clock.at + wait_s > at:
            clock.advance(at - clock.at)
            return waits
        clock.advance(wait_s)
        waits.append(wait_s)
        pass_(product)


def until(happened: Callable[[], object], timeout_s: float = 60) -> bool:
    """Wait for what another thread or process does; whether it came in time."""
    ends_at = time.monotonic() + timeout_s
    while not happened():
        if time.monotonic() > ends_at:
            return False
        time.sleep(0.002)
    return True


def killed(product: agent.Agent) -> None:
    """Leave a process without an end: its files close, nothing more is written."""
    product._counters.after_fork()
    product._spool.seal()
    product._worker.closed = True


def fields(request: dict[str, Any]) -> dict[str, str]:
    """A licence request's form fields."""
    form = parse_qs(request["body"], keep_blank_values=True, strict_parsing=True)
    return {name: values[0] for name, values in form.items()}


def snapshot(directory: Path) -> dict[str, bytes]:
    """Every file below ``directory`` with its content."""
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


def run_python(
    code: str | Path, *arguments: str, options: tuple[str, ...] = (), **given: Any
) -> subprocess.CompletedProcess[str]:
    """A program, or its text, in a fresh interpreter, with this package and nothing of ours around it."""
    program = ["-c", code] if isinstance(code, str) else [str(code)]
    settings = {"capture_output": True, "text": True, "timeout": 40, "env": child_environ()}
    return subprocess.run([sys.executable, *options, *program, *arguments], **{**settings, **given})


def child_environ() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
