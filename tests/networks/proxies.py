"""Proxies: real ones, and small raw ones for what no real one does on demand."""

from __future__ import annotations

from .situations import PROXIES, situation
from .stage import Stage


@situation("proxy-dead", PROXIES)
def dead(stage: Stage) -> None:
    """A proxy that is switched off."""
    url = stage.https()
    stage.fails(
        stage.product(url, proxy="http://127.0.0.1:9"), r"offline: proxy: Connection refused.*"
    )
    stage.delivers(stage.product(url))
