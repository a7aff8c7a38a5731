"""Real desktops' networks: each situation builds the real thing and lets a real agent deliver through it.

The same list is run by ``tests/transport/test_networks.py``, printed for ``vendor_notes/NETWORKS.md`` by ``python -m
tests.networks``, and searched for secrets. Servers run here, in this process, also where their sockets lie in another
network namespace; the agent runs in a process of its own where its environment or its network is not ours.
"""

import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parent.parent
ROOT = TESTS.parent
for _place in (str(TESTS), str(ROOT)):  # as pytest has it, for ``python -m tests.networks``
    if _place not in sys.path:
        sys.path.insert(0, _place)
