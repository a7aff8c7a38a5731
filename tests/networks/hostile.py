"""Hostile and half-broken networks that plain sockets can play."""

from __future__ import annotations

from .situations import HOSTILE, situation
from .stage import SHORT_S, Stage


@situation("refused", HOSTILE)
def refused(stage: Stage) -> None:
    """Nothing listens there."""
    url = stage.https()
    stage.collector.fault("refuse")
    product = stage.product(stage.collector.url)
    stage.fails(product, r"offline: connection: Connection refused.*")
    stage.collector.fault(None)
    stage.delivers(stage.product(url))
