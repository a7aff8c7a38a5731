"""What waits to be sent, read from all segments of all processes, and the reaping of what is done.

Only the holder of the deliverer's lock settles and reaps; anybody may look. Memory stays flat: at most
``LOADED`` segments are held parsed, however many there are. Only who looks for each record once
(``records``) holds the keys of all.
"""

from __future__ import annotations

import os

from .. import files
from . import names
from .ledger import Ledger
from .view import DAMAGED_BYTES, SegmentView

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Iterator, Optional

    from .ledger import Attempts
    from .records import Record

# 4 segments of 256 KiB parse to about 4 MB.
LOADED = 4
# A temporary file this old was left by a process that was killed.
TEMPORARY_AGE_S = 3600.0


class Backlog:
    """A reading of a state directory, plus what never reached a disk; only a deliverer's is ``reaping``."""

    def __init__(
        self,
        directory: Optional[str],
        memory: list[Record],
        *,
        reaping: bool = False,
        run: str = "",
    ) -> None:
        self._directory, self._memory, self._reaping = directory, memory, reaping
        self._views: dict[str, SegmentView] = {}
        self.ledger = Ledger(directory or "", run)
        self.trouble = ""

    def refresh(self) -> None:
        """Look at the directory again."""
        self.trouble = self.ledger.trouble = ""
        if self._directory is None:
            return
        try:
            segments, sidecars = names.listing(self._directory)
        except OSError as error:
            self.trouble = str(error)
            return
        self.ledger.refresh(segments, sidecars)
        old, self._views = self._views, {}
        for name in segments:
            self._views[name] = old.get(name) or SegmentView(self._directory, name)
        # A pass that ended early left what it had read last.
        for view in list(self._views.values())[LOADED:]:
            view.unload()

    def views(self) -> Iterator[SegmentView]:
        """Every segment, oldest first, each read as far as it is whole."""
        loaded: list[SegmentView] = []
        for view in list(self._views.values()):
            view.refresh()
            yield view
            loaded.append(view)
            if len(loaded) > LOADED:
                loaded.pop(0).unload()

    def records(self, *, dead: bool = False) -> Iterator[Record]:
        """Every unsettled record once, oldest segment first; with ``dead`` the dead letters instead."""
        seen = set()
        for record in self.waiting(dead=dead):
            if record.key not in seen:
                seen.add(record.key)
                yield record

    def waiting(self, *, dead: bool = False) -> Iterator[Record]:
        """The same in bounded memory: what lies in several segments comes again, until it is settled."""
        for view in self.views():
            for record in self.unsettled(view):
                if bool(record.why) == dead:
                    yield record
            if self._reaping:
                self.reap(view)
        if not dead:
            yield from self.unsettled(None)

    def unsettled(self, view: Optional[SegmentView]) -> Iterator[Record]:
        """What waits in one segment, or, for None, in memory."""
        for record in list(self._memory if view is None else view.records.values()):
            if not self.ledger.is_settled(record.key):
                known = self.ledger.get(record.key)
                if known is not None and known.frozen is not None:
                    record.body = known.frozen
                yield record

    def holds(self, record: Record) -> bool:
        """Whether a record is still there: a quota may have taken its segment since."""
        path = os.path.join(self._directory or "", record.segment)
        return not record.segment or os.path.exists(path)

    def is_closed(self, record: Record) -> bool:
        """Whether nothing more will be added to a record, which is then up to date.

        A counter grows until its window ends.
        """
        if record.kind != "aggregate" or record.ended_at is not None or not record.segment:
            return True
        view, known = self._views.get(record.segment), self.ledger.get(record.key)
        if view is None or (known is not None and known.frozen is not None):
            return True
        if view.is_live():
            return False
        view.refresh()  # its writer may have added to it and ended since it was read
        newest = view.records.get(record.key, record)
        record.body, record.ended_at = newest.body, newest.ended_at
        return not view.trouble

    def attempts(self, record: Record) -> Optional[Attempts]:
        """How often a record was tried, None for never."""
        return self.ledger.get(record.key)

    def reap(self, view: SegmentView) -> None:
        """Unlink a segment of which nothing is left to do."""
        if self._is_done(view) and view.seize():
            # The writer may have added a record before we held the segment.
            if not self._is_done(view):
                view.let_go()
            elif view.remove():
                self.ledger.drop(names.sidecar(view.name))
                self._views.pop(view.name, None)
                return
        self.ledger.adopt(view.records.values())

    def _is_done(self, view: SegmentView) -> bool:
        return all(map(self.ledger.is_settled, view.records))

    def reap_named(self, segments: set[str]) -> None:
        """Reap these where nothing is left to do."""
        for name in segments & set(self._views):
            view = self._views[name]
            view.refresh()
            self.reap(view)
            view.unload()

    def forget_memory(self, record: Record) -> None:
        """Drop a settled record that was only in memory."""
        if not record.segment:
            try:
                self._memory.remove(record)
            except ValueError:
                pass  # a refusal, on another thread, was quicker
            self.ledger.forget(record)

    def sweep(self, expired_before_at: Optional[float] = None) -> None:
        """Remove sidecars without a segment and left-over temporary files, compact long sidecars.

        What stands in the place of a file and is none gives way; a file of ours that we may not read is made
        readable. Of an export that was taken before ``expired_before_at`` no record is young enough to be sent: its
        mark goes.
        """
        try:
            entries = set(os.listdir(self._directory or ""))
        except OSError:
            return
        for name in filter(names.is_ours, entries):
            path = os.path.join(self._directory or "", name)
            if names.is_renewed(name):
                _mend(path)
            if name.endswith(names.TEMPORARY):
                import time  # the file system's clock, so the system's and no other

                _remove_if(path, before_at=time.time() - TEMPORARY_AGE_S)
            elif name.startswith(names.IMPORTED) and expired_before_at is not None:
                _remove_if(path, before_at=expired_before_at)
            elif name.endswith(names.SIDECAR) and names.segment_of(name) not in entries:
                files.remove(path)
                self.ledger.drop(name)
            elif name.endswith(names.SIDECAR):
                self.ledger.compact(name)
            elif name == names.DAMAGED:  # we write no longer one, and it would count for ever
                _remove_if(path, above_bytes=4 * DAMAGED_BYTES)


def _mend(path: str) -> None:
    try:
        mode = os.lstat(path).st_mode
        if mode & 0o170000 == 0o040000 and "-" not in os.path.basename(path):
            os.rmdir(path)  # a common word; with anything in it, it is somebody else's
        elif mode & 0o170000 != 0o100000:
            os.rename(path, "%s.%s%s" % (path, os.urandom(8).hex(), names.TEMPORARY))
        elif mode & 0o600 != 0o600:
            os.chmod(path, 0o600)
    except OSError:
        pass


def _remove_if(path: str, *, before_at: float = -1e12, above_bytes: float = float("inf")) -> None:
    try:
        found = os.lstat(path)
        if found.st_mtime < before_at or found.st_size > above_bytes:
            files.remove(path)
    except OSError:
        pass
