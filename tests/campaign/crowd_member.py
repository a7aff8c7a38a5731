"""One process of the crowd: records what it is told, says on disk what was acknowledged and when it delivered.

Started by ``crowd`` as ``python -m campaign.crowd_member ROLE SETTINGS``. Talks in lines: it says "ready", hears "go",
records, says "recorded", hears "flush" or nothing, says its ``status()`` and ends when its standard input does.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any, Optional

import agent
from agent.transport import HttpTransport, Request, Response

HEADER = "X-Crowd"


def text_of(key: str) -> str:
    """The one content that belongs to a key."""
    return key + " " + hashlib.sha256(key.encode()).hexdigest()


class Notes:
    """A file to which many processes append whole lines."""

    def __init__(self, path: str) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def add(self, *words: object) -> None:
        os.write(self._fd, (" ".join(map(str, words)) + "\n").encode("ascii"))


class Watched:
    """The usual transport, which tells in each request whose it is and in which pass, and notes where passes begin
    and end: both while the deliverer's lock is held, so the order of the notes is that of the passes.
    """

    def __init__(self, notes: Notes) -> None:
        self._notes = notes
        self._name = os.urandom(4).hex()
        self._pid = self._passes = 0
        self._inside = False
        self._inner = HttpTransport()

    def _mine(self) -> None:
        if self._pid != os.getpid():  # connections are their process's
            self._pid, self._passes, self._inside = os.getpid(), 0, False
            self._inner = HttpTransport()

    def send(self, request: Request, *, timeout_s: float) -> Response:
        self._mine()
        if not self._inside:
            self._inside, self._passes = True, self._passes + 1
            self._notes.add("begin", self._pid)
        headers = {**request.headers, HEADER: "%d-%s-%d" % (self._pid, self._name, self._passes)}
        own = Request(request.method, request.url, headers, request.body)
        return self._inner.send(own, timeout_s=timeout_s)

    def rest(self) -> None:
        self._mine()
        self._inner.rest()
        if self._inside:
            self._inside = False
            self._notes.add("end", self._pid)

    def interrupt(self) -> None:
        self._inner.interrupt()

    def close(self) -> None:
        self._inner.close()


class Member:
    """The agent of this process, and what it records."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings = settings
        if settings.get("lock_error"):
            _break_locks(settings["lock_error"])
        self.acknowledged = Notes(settings["acknowledged"])
        keys = (agent.PublicKey.from_pem(settings["pem"], name="global"),)
        self.config = agent.Config(
            vendor="Acme",
            product_name="Studio",
            product_id="42",
            product_version="5.2.5",
            usage_consent=True,
            state_dir=settings["state_dir"],
            start_delay_s=0,
            exit_timeout_s=2,
            endpoints=(
                agent.GetKeyManager(base_url=settings["url"], api_key="demo-api-key", keys=keys),
                agent.Reo(base_url=settings["url"], api_key="demo-api-key", domain="acme.example"),
            ),
        )
        self.agent = self.made()

    def made(self) -> agent.Agent:
        watched = Watched(Notes(self.settings["passes"]))
        made = agent.Agent(self.config, ("demo-license-key", "a"), transport=watched)
        worker = made._engine.worker
        step = worker._step

        def checked() -> Optional[float]:
            try:
                return step()
            except (
                BaseException
            ):  # the worker would rest for a minute, and say no more than the name
                with open(self.settings["passes"] + ".defects", "a", encoding="utf-8") as file:
                    file.write(traceback.format_exc())
                raise

        worker._step = checked
        return made

    def record(self, key: str) -> None:
        """One record, to the licence server or to the usage collector; noted once the call acknowledged it."""
        if int(key.rpartition("-")[2]) % 2:
            kept = self.agent.track("EXPORT", meta={"text": text_of(key)})
        else:
            kept = self.agent.record_text(text_of(key), data_group="g")
        if kept is not None:
            self.acknowledged.add(key)

    def record_all(self, name: str) -> None:
        for n in range(self.settings["records"]):
            self.record("%s-%d" % (name, n))

    def drain(self, timeout_s: float = 60) -> bool:
        """Deliver until nothing is pending."""
        ends_at = time.monotonic() + timeout_s
        while not (drained := self.agent.flush(5).drained) and time.monotonic() < ends_at:
            time.sleep(0.01)
        return drained


def _break_locks(number: int) -> None:
    """Every lock call of this process fails."""
    import fcntl

    def flock(fd: Any, operation: int) -> None:
        raise OSError(number, os.strerror(number))

    fcntl.flock = flock


def say(word: object) -> None:
    os.write(1, (str(word) + "\n").encode("ascii"))


def hear() -> str:
    """The next line of standard input; "" at its end. Unbuffered: forked children share it."""
    line = b""
    while not line.endswith(b"\n"):
        byte = os.read(0, 1)
        if not byte:
            return ""
        line += byte
    return line.decode("ascii").strip()


def one(member: Member, name: str) -> None:
    """A product like any other: records while its worker tries to deliver."""
    say("ready")
    hear()
    member.record_all(name)
    say("recorded")
    while hear() == "flush":
        say(json.dumps({"drained": member.drain(), **member.agent.status()}))
    member.agent.close(30)


def threads(member: Member, name: str) -> None:
    """Many threads that record, track, count, flush and look, all at once."""
    settings, product, failures = member.settings, member.agent, []
    starting = threading.Barrier(settings["threads"])

    def work(number: int) -> None:
        try:
            starting.wait(30)
            for n in range(settings["records"]):
                member.record("%s.%d-%d" % (name, number, n))
                product.count("RENDER", n % 7 + 1)
                product.count("THREAD-%d" % number)
                if n % 8 == number % 8:
                    product.flush(0.05 * (number % 3))
                elif n % 8 == (number + 3) % 8:
                    product.status()
                elif n % 8 == (number + 5) % 8 and number % 4 == 0:
                    product.preview(samples=True)
        except BaseException as error:
            failures.append(repr(error))
            raise

    say("ready")
    hear()
    running = [threading.Thread(target=work, args=(n,)) for n in range(settings["threads"])]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    say("recorded")
    while hear() == "flush":
        drained = member.drain()
        say(json.dumps({"drained": drained, "failures": failures, **product.status()}))
    product.close(30)


def child(work: Callable[[], None]) -> int:
    """Fork; the child does ``work`` and ends at once, with 0 where that went well."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            signal.alarm(60)
            work()
            status = 0
        except Exception:
            traceback.print_exc()
        finally:
            os._exit(status)
    return pid


def joined(pids: list[int]) -> None:
    for pid in pids:
        _, status = os.waitpid(pid, 0)
        assert status == 0, status


def prefork(member: Member, name: str) -> None:
    """A server: the parent makes the agent and records, its children record and serve until SIGTERM."""
    say("ready")
    hear()
    member.record_all(name)

    def serve(number: int) -> None:
        ended: list[int] = []
        signal.signal(signal.SIGTERM, lambda *_: ended.append(1))
        member.record_all("%s.child%d" % (name, number))
        member.agent.count("SERVED", number + 1)
        os.write(writer, b"x")
        while not ended:
            time.sleep(0.02)
        member.agent.close(30)

    reader, writer = os.pipe()
    pids = [child(lambda n=n: serve(n)) for n in range(member.settings["children"])]  # type: ignore[misc]
    serving = 0
    while serving < len(pids):
        serving += len(os.read(reader, 100))
    for pid in pids:
        os.kill(pid, signal.SIGTERM)
    joined(pids)
    os.close(reader)
    os.close(writer)
    _rest(member)


def forks(member: Member, name: str) -> None:
    """Children forked one after the other, beside threads that hold every lock now and then."""
    settings, product = member.settings, member.agent
    say("ready")
    hear()
    going = [True]

    def record(number: int) -> None:
        n = 0
        while going[0] and n < 10 * settings["records"]:
            member.record("%s.thread%d-%d" % (name, number, n))
            product.count("RENDER")
            product.status() if n % 5 == 0 else product.flush(0)
            n += 1

    running = [threading.Thread(target=record, args=(n,)) for n in range(3)]
    for thread in running:
        thread.start()
    for number in range(settings["children"]):

        def work(number: int = number) -> None:
            for n in range(4):
                member.record("%s.child%d-%d" % (name, number, n))
            product.count("CHILD", 3)
            product.close(30)

        joined([child(work)])
    going[0] = False
    for thread in running:
        thread.join()
    _rest(member)


_member: Optional[Member] = None


def _pooled(given: tuple[dict[str, Any], str, bool]) -> int:
    """What a process of ``multiprocessing`` does: with the parent's agent, or with one of its own."""
    settings, name, own = given
    global _member
    if own or _member is None:
        _member = Member(settings)
    _member.record_all(name)
    _member.agent.count("POOLED", 2)
    assert _member.drain(), _member.agent.status()
    _member.agent.close(30) if own else None
    return os.getpid()


def multiprocess(member: Member, name: str) -> None:
    """``Process`` and ``Pool`` with one start method, on the parent's agent or on one of their own."""
    import multiprocessing

    global _member
    settings = member.settings
    context = multiprocessing.get_context(settings["method"])
    own = settings["own"]
    _member = member
    say("ready")
    hear()
    member.record_all(name)
    # What the worker is loading while it forks, a child would wait for in vain.
    member.drain()
    tasks = [(settings, "%s.process%d" % (name, n), own) for n in range(settings["pooled"])]
    processes = [context.Process(target=_pooled, args=(task,)) for task in tasks]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0, process.exitcode
    with context.Pool(settings["pooled"]) as pool:
        tasks = [(settings, "%s.pool%d" % (name, n), own) for n in range(2 * settings["pooled"])]
        pool.map(_pooled, tasks, chunksize=1)
        pool.close()
        pool.join()
    _rest(member)


def _rest(member: Member) -> None:
    say("recorded")
    while hear() == "flush":
        say(json.dumps({"drained": member.drain(), **member.agent.status()}))
    member.agent.close(30)


def main(role: str, settings: dict[str, Any]) -> None:
    roles = (one, threads, prefork, forks, multiprocess)
    work = next(role_ for role_ in roles if role_.__name__ == role)
    work(Member(settings), settings["name"])


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]))
