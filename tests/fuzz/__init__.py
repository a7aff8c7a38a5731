"""Fuzzing of everything that reads what others wrote: answers, key documents, the spool's own lines and its book.

``python -m tests.fuzz --help``, from the top of the tree. A mutator that knows the formats does what it can, seeded;
the suite replays the inputs that were kept in ``tests/golden/fuzz``.
"""

import sys
from pathlib import Path

# What the tests share lies beside this directory, as pytest has it.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
