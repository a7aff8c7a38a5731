"""Certificates that must pass and certificates that must not."""

from __future__ import annotations

from .situations import CERTIFICATES, situation
from .stage import Stage

ISSUER = r"( \(issued by \"[^\"]*\"\))?"
REFUSED = "offline: TLS: certificate refused: %s" + ISSUER


@situation("certificate-expired", CERTIFICATES)
def expired(stage: Stage) -> None:
    """A certificate that is over."""
    url = stage.https(certificate=stage.authority.issue("localhost", days=-1))
    stage.fails(stage.product(url), REFUSED % "certificate has expired")
    stage.delivers(stage.product(stage.https()))
