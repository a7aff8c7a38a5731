"""An event loop that records: what it is made to wait for, and what a cancelled wait leaves behind."""

from __future__ import annotations

import pytest
from support.agent import Desk
from support.product import arrived, quiet, says


def test_recording_on_a_loop_costs_it_one_sync_and_no_network(at: Desk) -> None:
    """Beside a delivery that is under way all the time."""
    code = """
import asyncio
me, fsync, synced = threading.get_ident(), os.fsync, []
def counting(fd):
    if threading.get_ident() == me:
        synced.append(fd)
    fsync(fd)
os.fsync = counting
recording = []
sys.addaudithook(lambda event, args: event.startswith(("socket.", "subprocess.")) and recording
                 and threading.get_ident() == me and os._exit(9))
costs = {}
def cost(name, call, *arguments, **more):
    synced.clear()
    recording.append(True)
    call(*arguments, **more)
    recording.clear()
    costs[name] = max(costs.get(name, 0), len(synced))
async def main():
    t.call_home()
    flush = asyncio.ensure_future(asyncio.to_thread(t.flush, 20))
    for _ in range(10):
        cost("value", t.record_value, 1, data_group="g")
        cost("home", t.call_home)
        cost("track", t.track, "EXPORT")
        cost("count", t.count, "RENDER")
        await asyncio.sleep(0)
    await flush
    assert (await asyncio.to_thread(t.flush, 20)).drained
    await asyncio.to_thread(t.close)
asyncio.run(main(), debug=False)
print(json.dumps(costs))
"""
    costs = says(at, code, start_delay_s=0)
    assert (costs["track"], costs["count"]) == (0, 0)
    assert costs["value"] <= 1 and costs["home"] <= 1


@pytest.mark.parametrize("deliver", ["thread", "manual"])
def test_a_cancelled_flush_keeps_neither_the_loop_nor_a_record(at: Desk, deliver: str) -> None:
    """The thread cannot be cancelled; closing ends its wait, or the loop would wait a minute for it."""
    at.collector.fault("blackhole")
    code = """
import asyncio
async def main():
    t.record_text("before", data_group="g")
    flush = asyncio.ensure_future(asyncio.to_thread(t.flush, 60))
    while not t._delivery.in_flight:
        await asyncio.sleep(0.005)
    flush.cancel()
    try:
        await flush
    except asyncio.CancelledError:
        pass
    t.record_text("after", data_group="g")
    await asyncio.to_thread(t.close)
asyncio.run(main())
"""
    assert quiet(at, code, start_delay_s=0, deliver=deliver, request_timeout_s=60) < 20
    arrived(at, "after", "before")
