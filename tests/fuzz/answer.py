"""Target ``answer``: any HTTP answer gives one outcome of the closed set, bounded, without secrets, always the same.

Where keys are configured nothing but what the independent reader believes is delivered, flagged or held, and nothing
is ever refused. An input is ``200 complete``, header lines, an empty line, and a body as in the target ``envelope``.
"""

import json
import random
from typing import Any

from support.endpoints import API_KEY, getkeymanager, reo, unsigned

from agent.signatures.freshness import Freshness
from agent.values import Response, Verdict

from . import mutate, sealing, strict
from .target import Target, promise

DAY_S = 24 * 3600
CLOSED = {
    "signed": "delivered flagged held throttled offline skewed untrusted retry".split(),
    "unsigned": "delivered flagged held throttled offline retry refused".split(),
    "reo": "delivered held throttled offline retry refused".split(),
}
STATUSES = (200, 204, 301, 304, 400, 401, 402, 404, 405, 407, 408, 413, 422, 429, 451, 500, 503)
_TIMES = ["120", "99999999999", "-1", "1e3", "", "Tue, 27 Feb 2024 02:10:00 GMT"]
_TIMES += ["Mon, 99 Foo 99999 99:99:99 +9999"]
_TIMES += ["Tue, 27 Feb %s 02:10:00 GMT" % year for year in ("0", "9" * 8, "9" * 20)]
_TIMES += ["Tue, 27 Feb 2024 99:99:99 %s" % zone for zone in ("+9" * 9, "-" + "9" * 20)]
HEADERS = ["retry-after: " + text for text in _TIMES]
HEADERS += ["date: Tue, 27 Feb 2024 02:00:00 GMT", "date: x", "content-type: text/html"]


class Answer(Target):
    name = "answer"

    def __init__(self) -> None:
        self._checks = sealing.checks()
        self._adapters: dict[str, Any] = {
            "signed": getkeymanager(keys=tuple(sealing.keys())),
            "unsigned": unsigned(),
            "reo": reo(),
        }

    def seeds(self) -> list[bytes]:
        said = {"code": 831, "message": API_KEY, "errors": {API_KEY: [API_KEY + "…"]}}
        errors = json.dumps({**said, "timestamp": sealing.NOW})
        bodies = [sealing.JSON + content for content in sealing.contents()]
        bodies.append(sealing.JSON + errors.encode())
        bodies += [
            b'{"response_code":"200","response":"Data Uploaded","status":"success"}',
            b'{"response_code":400,"response":"Authentication Failure","status":"failure"}',
            b'{"response_code":422,"response":"%b","status":"failure"}' % API_KEY.encode(),
            b'{"response":{"code":830,"retry_after":7}}',
            b'{"retry_after":1e999}',
            b"<html>portal</html>",
            b"",
        ]
        found = [b"200 complete\n\n" + body for body in bodies]
        found += [b"%d complete\n\n{}" % status for status in STATUSES]
        found += [b"429 complete\n%b\n\n%b" % (h.encode(), bodies[-4]) for h in HEADERS]
        return [*found, b"200 cut\n\n" + bodies[0], b"400 cut\n\n" + bodies[-2]]

    def run(self, data: bytes) -> str:
        head, _, body = data.partition(b"\n\n")
        first, *lines = head.decode("latin-1").split("\n")
        digits = "".join(char for char in first[:3] if char in "0123456789")
        pairs = [line.partition(":")[::2] for line in lines]
        headers = {name.lower(): value for name, value in pairs}
        body = sealing.unmarked(body)
        response = Response(int(digits or 200), headers, body, "cut" not in first)
        found = [self._judge(name, response) for name in self._adapters]
        return " ".join(found)

    def _judge(self, name: str, response: Response) -> str:
        now: dict[str, Any] = {"now": sealing.NOW, "monotonic": 1000.0, "secret": ""}
        judge = self._adapters[name].judge
        verdict, again = (judge(response, freshness=Freshness(), **now) for _ in range(2))
        facts = verdict.to_json()
        promise(facts == again.to_json(), "two verdicts")
        promise(verdict.outcome in CLOSED[name], "%s is %s" % (name, verdict.outcome))
        promise(API_KEY not in repr(facts), "the API key is in %r" % facts)
        promise(len(verdict.reason) <= 300 and verdict.reason.isprintable(), repr(verdict.reason))
        json.dumps(facts, allow_nan=False).encode("ascii")
        self._judge_pause(name, verdict)
        self._judge_errors(verdict)
        if name == "signed":
            self._judge_proof(verdict, response)
        else:
            promise(verdict.timestamp is None, "proven, by nobody")
            stored = verdict.outcome in ("delivered", "flagged")
            promise(response.complete or not stored, "delivered by half an answer")
        return verdict.outcome

    def _judge_pause(self, name: str, verdict: Verdict) -> None:
        told_s, most_s = verdict.retry_after_s, DAY_S if name != "signed" else DAY_S / 4
        if verdict.outcome == "throttled":
            promise(0 < told_s <= most_s, "a pause of %r s" % told_s)
        else:
            promise(not told_s, "a pause with " + verdict.outcome)

    def _judge_errors(self, verdict: Verdict) -> None:
        errors = verdict.errors
        promise(errors is None or verdict.outcome == "flagged", "errors of something else")
        promise(len(errors or ()) <= 32, "%d fields" % len(errors or ()))
        for field, messages in (errors or {}).items():
            promise(len(messages) <= 8, "%d messages" % len(messages))
            for text in (field, *messages):
                promise(len(text) <= 200 and text.isprintable(), "a message: %r" % text)

    def _judge_proof(self, verdict: Verdict, response: Response) -> None:
        signed = verdict.outcome in ("delivered", "flagged", "held", "skewed")
        promise((verdict.timestamp is not None) == signed, "%s unproven" % verdict.outcome)
        code: Any = None
        timestamp: Any = None
        try:
            code, timestamp, _ = strict.receipt(response.body, self._checks)
        except strict.Unproven:
            pass
        if code is None or not response.complete:
            promise(verdict.timestamp is None, "proven, by nobody")
            return
        fresh = abs(timestamp - sealing.NOW) <= DAY_S
        known = {830: "delivered", 831: "flagged"}.get(code, "held")
        promise(
            verdict.outcome == (known if fresh else "skewed"), "%d: %s" % (code, verdict.outcome)
        )
        promise((verdict.code, verdict.timestamp) == (code, timestamp), "another code or time")

    def mutate(self, data: bytes, rnd: random.Random) -> bytes:
        head, _, body = data.partition(b"\n\n")
        if rnd.random() < 0.6:
            return head + b"\n\n" + sealing.mutated(body, rnd)
        first, *lines = head.split(b"\n")
        change = rnd.randrange(4)
        if change == 0:
            first = b"%d %b" % (
                rnd.choice(STATUSES),
                rnd.choice((b"complete", b"complete", b"cut")),
            )
        elif change == 1:
            lines.append(rnd.choice(HEADERS).encode("ascii"))
        elif change == 2 and lines:
            del lines[rnd.randrange(len(lines))]
        else:
            return mutate.of_bytes(head, rnd).replace(b"\n\n", b"\n") + b"\n\n" + body
        return b"\n".join([first, *lines]) + b"\n\n" + body


TARGET = Answer
