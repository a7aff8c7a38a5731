"""demo: the whole story on loopback, against the bundled collector, in steps that check what they say.

Everything happens in a temporary directory that is removed afterwards; no other machine is asked. What the steps do is
in ``steps`` and ``rotation``; here they are run, narrated and summed up: any step that differs makes the exit
status 1.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from typing import TYPE_CHECKING, Any, Optional

from ..arguments import UsageError, can_demo, whole
from ..output import Output, is_terminal, write
from ..screen import wrapped

if TYPE_CHECKING:
    from ...config import Config
    from ..arguments import Parser

_GREEN, _RED, _PLAIN = "\x1b[32m", "\x1b[31m", "\x1b[0m"


def add_to(parser: Parser) -> None:
    """``demo``."""
    demo = parser.command(
        "demo",
        "show on loopback what happens online, offline, killed, replayed and lied to",
        "demo\ndemo --json\ndemo --rotation",
        _demo,
        configurable=False,
        hidden=not can_demo(),
    )
    demo.add_argument(
        "--rotation",
        action="store_true",
        default=False,
        help="show instead how a vendor changes the signing key without a product update",
    )
    demo.option("--inject", action="append", type=whole, default=[], help=argparse.SUPPRESS)


def _demo(args: argparse.Namespace, out: Output, given: Optional[Config]) -> int:
    from ...collector import Collector
    from .stage import Differs, Stage

    steps, injected = _story(args.rotation)
    if getattr(sys, "frozen", False):
        raise UsageError("demo starts and kills a second Python, which a frozen program has not")
    for number in args.inject:
        if not 1 <= number <= len(steps):
            raise UsageError("--inject: got %d, allowed is 1 to %d" % (number, len(steps)))
    inject = {number: injected[number] for number in args.inject}
    narrator = _Narrator(out)
    results: list[dict[str, Any]] = []
    began = time.monotonic()
    with Collector() as collector, Stage(collector, inject) as stage:
        for number, (title, act) in enumerate(steps, 1):
            ok = True
            try:
                with stage.step(number):
                    detail = act(stage)
            except Differs as error:
                ok, detail = False, str(error)
            except Exception as error:  # noqa: B902 - a defect of ours differs from the claim, too
                ok, detail = False, "%s: %s" % (type(error).__name__, error)
            if not ok:
                stage.start_afresh()
            results.append({"step": number, "title": title, "ok": ok, "detail": detail})
            narrator.tell(results[-1])
    ok = all(result["ok"] for result in results)
    narrator.end(results, time.monotonic() - began)
    if out.as_json:
        out.answer({"steps": results, "ok": ok}, [])
    return 0 if ok else 1


def _story(rotation: bool) -> tuple[Any, dict[int, Optional[str]]]:
    """The steps, and what can be injected into each."""
    from . import rotation as changing, steps

    return (changing.STEPS, {**changing.INJECTED}) if rotation else (steps.STEPS, steps.INJECTED)


class _Narrator:
    """Tells the story: on stdout, or beside the JSON on stderr; plain where the stream is."""

    def __init__(self, out: Output) -> None:
        self._stream = sys.stderr if out.as_json else sys.stdout
        self._marks = ("\u2713", "\u2717") if self._can_show("\u2713\u2717") else ("ok", "FAIL")
        self._colour = (
            is_terminal(self._stream) and not os.environ.get("NO_COLOR") and os.name != "nt"
        )

    def _can_show(self, text: str) -> bool:
        try:
            text.encode(getattr(self._stream, "encoding", None) or "ascii")
            return True
        except (UnicodeEncodeError, LookupError):
            return False

    def _mark(self, ok: bool) -> str:
        mark = self._marks[0] if ok else self._marks[1]
        return (_GREEN if ok else _RED) + mark + _PLAIN if self._colour else mark

    def tell(self, result: dict[str, Any]) -> None:
        """One step: what was claimed, whether it holds, what was seen."""
        mark = self._mark(result["ok"])
        write(self._stream, "%2d  %s  %s" % (result["step"], mark, result["title"]))
        for line in result["detail"].splitlines():
            for part in wrapped(line, shutil.get_terminal_size().columns, 9, " " * 7):
                write(self._stream, part)

    def end(self, results: list[dict[str, Any]], elapsed_s: float) -> None:
        """How many steps hold."""
        wrong = sum(not result["ok"] for result in results)
        what = "%d of %d steps differ" % (wrong, len(results)) if wrong else "every step holds"
        write(self._stream, "%s  %s (%.1f s)" % (self._mark(not wrong), what, elapsed_s))
