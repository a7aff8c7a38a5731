"""What all adapters share: ``Capture``, what is known at the moment of recording, and how a request is put together.

A capture is taken once per record and never changes afterwards. Which of it an endpoint is told, and how its answers
are judged, is decided in the endpoint's own module.
"""

from __future__ import annotations

from ..version import VERSION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Optional

    from ..config import Config, GetKeyManager, Reo
    from ..signatures.trust import TrustedKeys
    from ..transport import Request

# What a server is told by start-up alone, where there is no other data.
CALL_HOME = "CALL HOME"
# In the reason, behind the status, where an answer holds nothing that such a server says.
FOREIGN = ": not an answer of this server"


class Capture:
    """``at`` is Unix seconds; ``license_key`` and ``activation_identifier`` may be unknown (None or "")."""

    __slots__ = ("event_id", "at", "user_identifier", "license_key", "activation_identifier")

    def __init__(
        self,
        event_id: str,
        at: float,
        user_identifier: str,
        license_key: Optional[str] = None,
        activation_identifier: Optional[str] = None,
    ) -> None:
        self.event_id = event_id
        self.at = at
        self.user_identifier = user_identifier
        self.license_key = license_key
        self.activation_identifier = activation_identifier


class Adapter:
    """One configured endpoint."""

    kind = ""
    usage = signed = False
    trust: Optional[TrustedKeys] = None  # where a keyring may change which keys are trusted

    def __init__(self, endpoint: GetKeyManager | Reo, config: Config) -> None:
        self.name = endpoint.name
        self.product_id = endpoint.product_id or config.product_id
        self._base_url, self._api_key = endpoint.base_url, endpoint.api_key

    @property
    def identity(self) -> str:
        """Which server and account this is; for a keyed hash, never to be shown."""
        parts = (self.kind, self.name, self._base_url, self._api_key, self.product_id)
        return "\n".join(parts)

    def _post(self, path: str, content_type: str, text: str, **headers: str) -> Request:
        from ..transport import Request

        headers = {
            "Accept": "application/json",
            "Content-Type": content_type,
            "User-Agent": "callhome-agent/" + VERSION,
            **headers,
        }
        return Request("POST", self._base_url + path, headers, text.encode("ascii"))


def in_order(fields: dict[str, Any], order: tuple[str, ...]) -> dict[str, Any]:
    """The same fields: first those of the protocol's table, in its order."""
    return {name: fields[name] for name in (*order, *fields) if name in fields}
