"""Fuzzing of everything that reads what others wrote: answers, keys, key documents and the spool's own lines.

``python -m tests.fuzz --help``, from the top of the tree. With Atheris (``pip install atheris``; nothing else needs
it) coverage guides the mutations, without it a plain mutator does what it can. The suite replays the inputs that
were kept in ``tests/golden/fuzz``.
"""

import sys
from pathlib import Path

# What the tests share lies beside this directory, as pytest has it.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
