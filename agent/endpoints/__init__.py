"""The wire protocols: each adapter encodes records for one configured server and judges its answers.

Adapters are pure: the same record gives the same bytes, any answer gives a verdict, and neither raises. They store
nothing, send nothing and know no other endpoint.
"""

from __future__ import annotations

from ..config import GetKeyManager
from . import verdicts
from .common import Capture
from .verdicts import Verdict

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Union

    from ..config import Config, Reo
    from .getkeymanager import GetKeyManagerAdapter
    from .reo import ReoAdapter

    Adapter = Union[GetKeyManagerAdapter, ReoAdapter]

__all__ = ["Capture", "Verdict", "adapter", "verdicts"]


def adapter(endpoint: GetKeyManager | Reo, config: Config) -> Adapter:
    """The adapter for one of the configuration's endpoints; raises ``ConfigError`` for keys of another making."""
    if isinstance(endpoint, GetKeyManager):
        from .getkeymanager import GetKeyManagerAdapter

        return GetKeyManagerAdapter(endpoint, config)
    from .reo import ReoAdapter

    return ReoAdapter(endpoint, config)
