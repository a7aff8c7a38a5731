"""Campaigns: thousands of kills, faults and damaged files against the spool, with figures anyone can reproduce.

``python -m tests.campaign --help``, from the top of the tree. The suite runs a short form of each; the results of the
full ones stand in ``vendor_notes/RELIABILITY.md`` with the command that gives them.
"""

import sys
from pathlib import Path

# What the tests share lies beside this directory, as pytest has it.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
