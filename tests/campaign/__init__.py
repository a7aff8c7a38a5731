"""Campaigns: thousands of kills, faults and damaged files against the spool, with figures anyone can reproduce.

``python -m tests.campaign --help``, from the top of the tree. The suite runs a short form of each; the results of the
full ones stand in ``vendor_notes/RELIABILITY.md`` with the command that gives them.
"""

import sys
from pathlib import Path

# What the tests share lies beside this directory, and the rules of the model among the tests, as pytest has it.
_TESTS = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(_TESTS), str(_TESTS / "spool")]
