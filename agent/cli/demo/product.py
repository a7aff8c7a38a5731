"""The demo's product in a process of its own: it reads a task, records, says what it did, and is killed or quits.

The task comes as one line of JSON on stdin, the answer goes as one line to stdout.
"""

from __future__ import annotations

import json
import sys

from ...client import Agent
from ..config_file import from_mapping

TEXTS = ("opengl", "two screens", "dark")


def main() -> int:
    """Do one task."""
    task = json.loads(sys.stdin.readline())
    key, activation = task["license"]
    agent = Agent(from_mapping(task["config"]), key, activation)
    if task["act"] == "quit":
        # No close(): leaving Python is all that a careless product does.
        _tell({"event_id": agent.call_home()})
        return 0
    agent.call_home()
    for text in TEXTS:
        agent.record_text(text, data_group="renderer")
    tracked = [agent.track("EXPORT", meta={"page": page}) for page in range(3)]
    report = agent.flush(2.0)
    _tell({"event_ids": tracked, "delivered": report.delivered, "pending": report.pending})
    sys.stdin.read()  # working on; the end comes from outside
    return 0


def _tell(answer: object) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()
