"""The spool: what was recorded and not yet proven delivered, in checksummed segments on disk.

``vendor_notes/SPOOL.md`` describes the format, ``store.Spool`` is the door. The spool knows nothing of endpoints,
networks or verdicts: it keeps, gives and forgets.
"""

from __future__ import annotations
