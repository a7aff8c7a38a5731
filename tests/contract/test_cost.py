"""What the life of a record costs inside the package: calls, and modules that they go through.

Counted in a process of its own with a profiler on every thread, ours included, which ``threading`` does not know.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.agent import run_python

from agent.collector import Collector

PROGRAM = """
import _thread, json, os, sys, threading
import agent
HOME = os.path.dirname(agent.__file__) + os.sep
seen, watching = [], [False]

def profile(frame, event, arg):
    if event == "call" and watching[0] and frame.f_code.co_filename.startswith(HOME):
        seen.append(frame.f_code.co_filename[len(HOME):])

def watched(main, *given, start=_thread.start_new_thread):
    def run(*args):
        sys.setprofile(profile)
        main(*args)
    return start(run, *given)

_thread.start_new_thread = watched
threading.setprofile(profile)
sys.setprofile(profile)

def cost(act):
    del seen[:]
    watching[0] = True
    result = act()
    watching[0] = False
    return result, {"calls": len(seen), "modules": sorted(set(seen))}

url, pem, place, deliver = sys.argv[1:]
key = agent.PublicKey.from_pem(pem)
server = agent.GetKeyManager(base_url=url, api_key="demo-api-key", keys=(key,))
config = agent.Config(vendor="Acme", product_name="Studio", product_id="42", product_version="5.2.5",
                      endpoints=(server,), state_dir=place, deliver=deliver, start_delay_s=0)
with agent.Agent(config, ("demo-license-key", "activation-1")) as telemetry:
    telemetry.call_home()
    assert telemetry.flush(10).drained
    telemetry.record_value(1, data_group="size")
    assert telemetry.flush(10).drained
    telemetry.record_value(2, data_group="size")
    _, record = cost(lambda: telemetry.record_value(3, data_group="size"))
    assert telemetry.flush(10).drained
    telemetry.record_value(4, data_group="size")
    report, flush = cost(lambda: telemetry.flush(10))
    assert report.delivered <= 1 and report.drained
print(json.dumps({"record": record, "flush": flush}))
"""


@pytest.fixture(scope="module", params=["manual", "thread"])
def cost(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    place: Path = tmp_path_factory.mktemp("cost") / "state"
    with Collector() as collector:
        pem = collector.keys[0]["public_key"]
        done = run_python(PROGRAM, collector.url, pem, str(place), request.param)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_further_record_is_a_few_calls(cost: Any) -> None:
    assert cost["record"]["calls"] <= 30, cost["record"]


def test_a_warm_flush_of_one_record_can_be_followed(cost: Any) -> None:
    assert cost["flush"]["calls"] <= 400, cost["flush"]
    assert len(cost["flush"]["modules"]) <= 20, cost["flush"]["modules"]
