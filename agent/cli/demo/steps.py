"""The ten steps of the demo: each does what its title says, looks at the collector and the disk, and tells what it saw.

A step returns its detail, or raises ``Differs``. Steps 5 to 7 belong together: what they record offline is owed until
the server has it.
"""

from __future__ import annotations

import http.client
import os
import signal
from typing import TYPE_CHECKING, Optional

from .product import TEXTS
from .stage import EXIT_TIMEOUT_S, LICENSE_KEY, SLACK_S, Stage, expect, timed

if TYPE_CHECKING:
    from collections.abc import Callable

    from ...client import Agent

CALL_HOME = "CALL HOME"
FORGERIES = ("unsigned", "wrong-key", "stale", "replay", "redirect", "portal")
SETTLING = ("delivered", "flagged", "rejected")
_FLUSH_S = 3.0


def _up(stage: Stage) -> str:
    stage.server(None)
    address = stage.collector.url.partition("//")[2]
    connection = http.client.HTTPConnection(address, timeout=_FLUSH_S)
    try:
        connection.request("GET", "/_collector/records")
        answer = connection.getresponse()
        content = answer.read()
    finally:
        connection.close()
    expect(answer.status == 200 and content == b"[]", "it answers %d" % answer.status)
    key = stage.collector.keys[0]
    return "%s answers, signs with %s, has nothing yet" % (stage.collector.url, key["algorithm"])


def _calls_home(stage: Stage) -> str:
    stage.server(None)
    with stage.product() as product:
        event_id, took_s = timed(product.call_home)
        report = product.flush(_FLUSH_S)
        last = _last_licence_answer(product)
    seen = stage.seen("getkeymanager")
    expect(event_id is not None, "nothing was recorded")
    expect(last == ("delivered", 830), "the product understood %s, code %s" % last)
    expect(len(seen) == 1 and seen[0]["answer"] == 830, "the server has %d records" % len(seen))
    expect(seen[0]["fields"]["text_data"] == CALL_HOME, "another text arrived")
    expect(seen[0]["fields"]["license_key"] == LICENSE_KEY, "another licence key arrived")
    expect(not stage.on_disk() and report.drained, "%d records still wait" % report.pending)
    return "recorded in %.0f ms; the answer is signed by a key we trust, code 830" % (took_s * 1e3)


def _last_licence_answer(product: Agent) -> tuple[str, Optional[int]]:
    """(verdict, signed code) of the last answer that the licence server gave."""
    answers = [a for a in product.history() if a["endpoint"] == "getkeymanager"]
    return (answers[-1]["verdict"], answers[-1]["code"]) if answers else ("nothing", None)


def _without_licence(stage: Stage) -> str:
    stage.server(None)
    with stage.product(license_key=None) as product:
        product.call_home()
        report = product.flush(_FLUSH_S)
        last = _last_licence_answer(product)
    seen = stage.seen("getkeymanager")
    expect(len(seen) == 1, "the server has %d records" % len(seen))
    expect(seen[0]["fields"].get("license_key") == "", "the field license_key is not there, empty")
    expect(seen[0]["answer"] == 831, "the server answered %d" % seen[0]["answer"])
    expect(last == ("flagged", 831), "the product understood %s, code %s" % last)
    expect(report.drained, "%d records still wait" % report.pending)
    return "saved with red flags, signed code 831; the product goes on as before"


def _usage(stage: Stage) -> str:
    stage.server(None)
    with stage.product() as product:
        event_id = product.track("EXPORT", meta={"format": "pdf"})
        product.count("RENDER", n=3)
        product.count("RENDER", n=2)
        report = product.flush(_FLUSH_S)
    events = [record["fields"] for record in stage.seen("reo-usage")]
    sums = [record["fields"] for record in stage.seen("reo-aggregate")]
    expect(len(events) + len(sums) == 2, "%d of 2 arrived" % (len(events) + len(sums)))
    expect(report.drained, "%d records still wait" % report.pending)
    expect([event["event_id"] for event in events] == [event_id], "another event arrived")
    expect([total["count"] for total in sums] == [5], "another sum arrived")
    expect(not stage.seen("getkeymanager"), "usage went to the licence server")
    return "event %s arrived, and one sum: RENDER 5" % event_id


def _goes_away(stage: Stage) -> str:
    stage.server("blackhole")
    product = stage.product()
    (_, home_s), (event_id, track_s) = timed(product.call_home), timed(
        lambda: product.track("SAVE")
    )
    product.flush(0.2)
    _, close_s = timed(product.close)
    waiting = stage.on_disk()
    arrived = len(stage.collector.records())
    expect(arrived == 0, "%d records were delivered" % arrived)
    expect(len(waiting) == 3, "%d records are on disk, not 3" % len(waiting))
    expect(max(home_s, track_s) < SLACK_S, "recording took %.0f ms" % (max(home_s, track_s) * 1e3))
    expect(close_s < EXIT_TIMEOUT_S + SLACK_S, "closing took %.0f ms" % (close_s * 1e3))
    stage.owed_ids.update(record.id for record in waiting if record.usage)
    stage.owed_texts.append(CALL_HOME)
    expect(event_id in stage.owed_ids, "the event is not on disk")
    return (
        "connections open and nobody answers: recording took %.0f and %.0f ms, closing %.0f ms of at "
        "most %.0f; 3 records are on disk"
        % (home_s * 1e3, track_s * 1e3, close_s * 1e3, EXIT_TIMEOUT_S * 1e3)
    )


def _killed(stage: Stage) -> str:
    stage.server("refuse")
    before = len(stage.on_disk())
    with stage.process("work") as (child, told):
        child.kill()
        status = child.wait()
    expect(status == (1 if os.name == "nt" else -signal.SIGKILL), "it ended with %d" % status)
    waiting = stage.on_disk()
    ids = {record.id for record in waiting}
    expect(told["delivered"] == 0, "%d records were delivered" % told["delivered"])
    expect(len(waiting) - before == 8, "%d of its 8 records are on disk" % (len(waiting) - before))
    expect(ids.issuperset(told["event_ids"]), "an event is not on disk")
    stage.owed_ids.update(record.id for record in waiting if record.usage)
    stage.owed_texts += [CALL_HOME, *TEXTS]
    return "process %d recorded 8 and was killed; %d records are on disk" % (
        child.pid,
        len(waiting),
    )


def _replayed(stage: Stage) -> str:
    stage.server(None)
    owed = len(stage.owed_ids) + len(stage.owed_texts)
    expect(bool(stage.owed_ids), "nothing was left by the steps before")
    with stage.product() as product:
        product.flush(_FLUSH_S)
    events = [record["fields"]["event_id"] for record in stage.seen("reo-usage")]
    texts = [record["fields"]["text_data"] for record in stage.seen("getkeymanager")]
    arrived = len(events) + len(texts)
    expect(arrived == owed, "%d of %d arrived" % (arrived, owed))
    expect(sorted(events) == sorted(stage.owed_ids), "other event ids arrived")
    expect(sorted(texts) == sorted(stage.owed_texts), "other licence records arrived")
    expect(not stage.on_disk(), "records still wait on disk")
    stage.owed_ids, stage.owed_texts = set(), []
    return "all %d arrived, each once, with the event ids they were recorded under" % owed


def _forged(stage: Stage) -> str:
    told = []
    with stage.product(deliver="manual") as product:
        product.record_text("believe no stranger", data_group="demo")
        for forgery in FORGERIES:
            stage.server(forgery)
            report = product.flush(_FLUSH_S)
            settled = report.delivered + report.flagged
            waits = [record.body["text_data"] for record in stage.on_disk()]
            expect(not settled and len(waits) == 1, "%s: the record was let go" % forgery)
            last = product.history(1)[-1]
            expect(last["verdict"] not in SETTLING, "%s: %s" % (forgery, last["verdict"]))
            told.append("%-9s  %s: %s" % (forgery, last["verdict"], last["reason"]))
        strays = [r["path"] for r in stage.collector.requests() if r["endpoint"] is None]
        expect(not strays, "a redirect was followed to %s" % ", ".join(strays))
        stage.server(None)
        report = product.flush(_FLUSH_S)
        expect(report.delivered == 1, "the honest answer at the end settled nothing")
    return "\n".join([*told, "after each the record waited on; the first honest answer settled it"])


def _withdrawn(stage: Stage) -> str:
    stage.server("refuse")
    with stage.product() as product:
        product.call_home()
        for _ in range(3):
            product.track("SECRET-PROJECT")
        product.count("SECRET-SUM", n=7)
        product.flush(_FLUSH_S)
        waited = sum(record.usage for record in stage.on_disk())
        product.set_usage_consent(False)
        left = sum(record.usage for record in stage.on_disk())
        traces = stage.holds("SECRET-")
        stage.server(None)
        product.flush(_FLUSH_S)
    usage = stage.seen("reo-usage") + stage.seen("reo-aggregate")
    expect(waited == 5, "%d usage records waited, not 5" % waited)
    expect(left == 0 and not traces, "usage is still on disk")
    expect(not usage, "%d usage records were sent" % len(usage))
    expect(len(stage.seen("getkeymanager")) == 1, "the licence record did not arrive")
    return "5 usage records purged at once, none sent, no trace on disk; the licence record arrived"


def _ends(stage: Stage) -> str:
    stage.server("blackhole")
    with stage.process("quit") as (child, _):
        end = stage.end_of(child)
    expect(end.status == 0 and not end.stderr, "status %d: %s" % (end.status, end.stderr[-200:]))
    expect(end.elapsed_s < EXIT_TIMEOUT_S + SLACK_S, "leaving took %.2f s" % end.elapsed_s)
    stage.server(None)
    with stage.product() as product:
        report = product.flush(1.0)
        dead = product.status()["dead"]
    expect(report.drained and not dead, "%d wait, %d dead" % (report.pending, dead))
    expect(not stage.segments(), "record files are left: " + ", ".join(stage.segments()))
    return (
        "a process quits with its request unanswered: status 0, silent, gone in %.0f ms; its records "
        "went with the next start, the spool is empty" % (end.elapsed_s * 1e3)
    )


# What the collector does instead of what a step asks for, to see it fail: None is an honest answer.
INJECTED = {
    1: "refuse",
    2: "wrong-key",
    3: "unsigned",
    4: "portal",
    5: None,
    6: None,
    7: "500",
    8: None,
    9: None,
    10: "blackhole",
}

STEPS: tuple[tuple[str, Callable[[Stage], str]], ...] = (
    ("A collector listens on loopback", _up),
    ("A product starts and calls home; the answer is signed and verified", _calls_home),
    ("Without a licence key it reports all the same", _without_licence),
    ("A usage event and a counter go to the usage endpoint", _usage),
    ("The server goes away: records stay on disk, the product is not held up", _goes_away),
    ("A product is killed while it is offline: nothing is lost", _killed),
    ("The server is back: the next start replays everything", _replayed),
    ("Forged answers acknowledge nothing", _forged),
    ("Consent to usage is withdrawn: purged; the licence still reports", _withdrawn),
    ("An honest end: leaving is quick, the spool is empty", _ends),
)
