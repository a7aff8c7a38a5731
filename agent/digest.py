"""SHA-256 without the 4 ms that ``hashlib`` costs a cold start, for loading OpenSSL.

The interpreter's own C modules give the same digest, or are not there at all.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def _load() -> Any:
    try:
        from _sha2 import sha256  # type: ignore[import-not-found]  # Python 3.12 and newer
    except ImportError:
        try:
            from _sha256 import sha256  # type: ignore[import-not-found]
        except ImportError:
            from hashlib import sha256
    return sha256


sha256 = _load()  # (bytes) -> an object with ``digest()`` and ``hexdigest()``
