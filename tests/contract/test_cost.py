"""What the life of a record costs inside the package: calls, and modules that they go through.

Counted in a process of its own with a profiler on every thread, ours included, which ``threading`` does not know.
"""

import os
import time
from pathlib import Path
from typing import Any

import pytest
from support.agent import FakeClock, desk
from support.product import PRODUCT, says

pytestmark = pytest.mark.once  # what a Python counts as a call changed in 3.12
WATCHED = """
import _thread, os, sys, threading
import agent
HOME = os.path.dirname(agent.__file__) + os.sep
seen, watching = [], [False]

def profile(frame, event, arg):
    if event == "call" and watching[0] and frame.f_code.co_filename.startswith(HOME):
        seen.append((_thread.get_ident(), frame.f_code.co_filename[len(HOME):]))

def watched(main, *given, start=_thread.start_new_thread):
    def run(*args):
        sys.setprofile(profile)
        main(*args)
    return start(run, *given)

_thread.start_new_thread = watched
threading.setprofile(profile)
sys.setprofile(profile)

def cost(act, mine):
    del seen[:]
    watching[0] = True
    result = act()
    watching[0] = False
    found = [name for thread, name in seen if not mine or thread == _thread.get_ident()]
    return result, {"calls": len(found), "modules": sorted(set(found))}

"""
WORK = """
t.call_home()
assert t.flush(10).drained
t.record_value(1, data_group="size")
assert t.flush(10).drained
t.record_value(2, data_group="size")
_, record = cost(lambda: t.record_value(3, data_group="size"), True)  # what its caller pays
assert t.flush(10).drained
t.record_value(4, data_group="size")
report, flush = cost(lambda: t.flush(10), False)
assert report.delivered <= 1 and report.drained
print(json.dumps({"record": record, "flush": flush}))
"""


@pytest.fixture(scope="module", params=["manual", "thread"])
def cost(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    place: Path = tmp_path_factory.mktemp("cost") / "state"
    licence = "t.close()\nt = agent.Agent(config.replace(endpoints=config.endpoints[:1]), ('demo-license-key', 'a'))"
    with desk(place, FakeClock(time.time())) as at:
        given: Any = {"deliver": request.param, "start_delay_s": 60}
        found = says(at, licence + WORK, product=WATCHED + PRODUCT, **given)
        return {**found, "deliver": request.param}


def test_a_further_record_is_a_few_calls(cost: Any) -> None:
    assert cost["record"]["calls"] <= 30, cost["record"]


def test_a_warm_flush_of_one_record_can_be_followed(cost: Any) -> None:
    """On all threads together; with a thread of ours its own turns come on top."""
    most = (400 if cost["deliver"] == "manual" else 450) + 50 * (
        os.name == "nt"
    )  # its paths take more
    assert cost["flush"]["calls"] <= most, cost["flush"]
    assert len(cost["flush"]["modules"]) <= 20, cost["flush"]["modules"]
