"""The short form of the damage campaign, and that its verdicts can be bad ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fcntl")

from campaign import damage, damage_spool as spools, report  # noqa: E402 - needs fcntl

pytestmark = pytest.mark.once


@pytest.mark.campaign
def test_the_short_form_of_the_damage_campaign(tmp_path: Path) -> None:
    quiet = report.Progress(quiet=True)
    rows = damage.run(rounds=damage.SHORT_ROUNDS, seed=3, progress=quiet, work=tmp_path)
    assert [(row.treatment, row.broken) for row in rows if not row.ok] == []
    assert all(row.rounds and row.recorded and row.delivered for row in rows)
    assert sum(row.delivered for row in rows) < sum(row.recorded for row in rows)


@pytest.fixture(scope="module")
def oracle(tmp_path_factory: pytest.TempPathFactory) -> spools.Oracle:
    return spools.Oracle(spools.build(tmp_path_factory.mktemp("made") / "state", 60))


def judged(oracle: spools.Oracle, sent: list[Any], state: Any = None) -> list[str]:
    row = damage.judge(oracle, oracle.expect(state or dict(oracle.files)), sent)
    return [what.partition(":")[0] for what in row.broken]


def test_each_broken_promise_is_named(oracle: spools.Oracle) -> None:
    expected = oracle.before
    whole = [(key, True) for key in expected.must]
    settled = next(key for key, known in oracle.known.items() if known.settled)
    assert len(expected.must) > 60 and len(expected.dead) > 2
    assert judged(oracle, whole) == []
    assert judged(oracle, whole[1:]) == ["lost"]
    assert judged(oracle, [*whole[1:], (whole[0][0], False)]) == ["wrong"]
    assert judged(oracle, whole + whole[:1]) == ["delivered again"]
    assert judged(oracle, [*whole, (settled, True)]) == ["delivered again"]
    dead = [(key, True) for key in sorted(expected.dead)[:1]]
    assert "a dead letter was delivered" in judged(oracle, whole + dead)
    without = {name: data for name, data in oracle.files.items() if name != spools.CONSENT}
    assert judged(oracle, whole, without) == ["usage was sent without its consent"]


def test_what_the_book_no_longer_says_may_be_sent_again(oracle: spools.Oracle) -> None:
    state: spools.State = {**oracle.files, spools.BOOK: b""}
    expected = oracle.expect(state)
    assert expected.again and not expected.dead
    sent = [(key, True) for key in expected.must | expected.again]
    row = damage.judge(oracle, expected, sent)
    assert row.ok and row.causes == {damage.SETTLEMENT: len(expected.again)}


def test_a_counter_may_be_sent_with_its_greatest_undamaged_total(oracle: spools.Oracle) -> None:
    expected = oracle.before
    totals = {
        key: sorted(oracle.known[key].values.values(), key=spools._total) for key in expected.values
    }
    key = next(key for key, found in totals.items() if len(set(map(spools._total, found))) > 1)
    assert oracle.is_right(key, totals[key][-1], expected)
    assert not oracle.is_right(key, totals[key][0], expected)
