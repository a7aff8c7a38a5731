"""The process that libFuzzer takes over: loads the package instrumented, then executes until the time is up.

Half of the mutations are libFuzzer's own, half are the target's, which knows the format. A crash is written down and
the run goes on: one bug must not hide the next. ``guided`` is the parent; the only argument is its job, in JSON.
"""

from __future__ import annotations

import importlib
import json
import random
import sys
from pathlib import Path
from typing import Any

from . import corpus, target as targets
from .findings import Finding
from .guided import CRASHES

# Four times the largest published answer.
MAX_INPUT_BYTES = 8 * 1024
HANG_S = 20
MEMORY_MB = 2048


def main(job: dict[str, Any]) -> None:
    atheris: Any = importlib.import_module("atheris")
    work, found = Path(job["work"]), Finding(job["name"], "atheris", job["seed"])
    with atheris.instrument_imports(include=["agent"], exclude=["agent.collector"]):
        target = targets.make(job["name"])
        seeds = target.seeds() + [data for _, data in corpus.kept(target.name)]
        for data in seeds:  # what is imported inside of calls must be instrumented too
            _run(target, data, found)

    def execute(data: bytes) -> None:
        if _run(target, data, found):
            text = json.dumps(found.to_json())
            (work / CRASHES).write_text(text, encoding="utf-8")

    def mutate(data: bytes, size_max: int, seed: int) -> bytes:
        rnd = random.Random(seed)
        if rnd.random() < 0.5:
            mutated: bytes = atheris.Mutate(data, size_max)
            return mutated
        return target.mutate(data, rnd)[:size_max]

    for data in seeds:
        corpus.save(work / "seeds", data)
    options = {
        "max_total_time": job["seconds"],
        "seed": job["seed"],
        "max_len": MAX_INPUT_BYTES,
        "len_control": 0,
        "timeout": HANG_S,
        "rss_limit_mb": MEMORY_MB,
        "artifact_prefix": str(work) + "/",
        "print_final_stats": 1,
    }
    arguments = ["-%s=%s" % option for option in options.items()]
    arguments = ["fuzz", job["corpus"], str(work / "seeds"), *arguments]
    atheris.Setup(arguments, execute, custom_mutator=mutate)
    atheris.Fuzz()


def _run(target: targets.Target, data: bytes, found: Finding) -> bool:
    """One execution; whether it crashed in a way that is worth writing down."""
    try:
        target.run(data)
    except (Exception, SystemExit) as error:
        return found.add(data, error)
    return False


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
