"""The reference collector: both vendors' endpoints on loopback, honest by default and hostile on demand.

For demos, tests and integrators who want to see what their product sends; a vendored copy leaves this folder out, and
nothing else in the package imports it. It binds loopback only and signs with published keys, so it proves nothing
to anybody but a test.
"""

from __future__ import annotations

from .faults import ENDPOINTS, FAULTS
from .serve import serve
from .server import Collector

__all__ = ("ENDPOINTS", "FAULTS", "Collector", "serve")
