"""The consent mark: usage captured before a refusal is never sent by anyone.

An epoch is the number in the name of the one file ``consent-<n>``, so there is nothing to tear, to compact or to
compare by clock. Usage is recorded under the epoch of its time and sent only while that epoch is current. A refusal
begins the next one. Files are removed in ascending order: whoever knows an epoch sees it vanish.
"""

from __future__ import annotations

import errno
import os
from _thread import RLock

from .. import files
from . import names

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Optional

# So often may others overtake one refusal.
ROUNDS = 1000


class ConsentMark:
    """The current epoch of a state directory, or of this process where ``directory`` is None."""

    def __init__(self, directory: Optional[str]) -> None:
        self._directory = directory
        self._epoch = 0  # only grows
        self.anchored = False  # the mark of this epoch stands
        self.known = True  # the directory could be read: without that nobody may send usage
        self.after_fork()

    def after_fork(self) -> None:
        """In the child: a lock of its own. What is known stays known."""
        self._lock = RLock()  # a signal handler may ask in the middle of a change

    def _path(self, epoch: int) -> str:
        return os.path.join(self._directory or "", "%s-%d" % (names.CONSENT, epoch))

    def _epochs(self) -> list[int]:
        """The marks on disk, ascending."""
        try:
            found = os.listdir(self._directory or "")
        except (FileNotFoundError, NotADirectoryError):
            return []
        marks = [name for name in found if name.startswith(names.CONSENT) and names.is_ours(name)]
        numbers = [name[len(names.CONSENT) + 1 :] for name in marks]
        return sorted(int(number) for number in numbers if number.isdigit())

    def _note(self, epoch: int, *, anchored: bool) -> None:
        """Take over an epoch; a smaller one than the known one never leads back."""
        with self._lock:
            self.anchored = anchored and epoch >= self._epoch
            self._epoch = max(self._epoch, epoch)

    def current(self, *, anchor: bool = False) -> int:
        """The epoch now, as any process left it; look at ``known`` before anything is sent under it.

        With ``anchor`` the mark of this epoch is made to exist, so that later calls cost two ``stat``: it
        vanishes, or the next one stands there, as soon as somebody refuses.
        """
        if self._directory is None:
            return self._epoch
        with self._lock:
            epoch, anchored = self._epoch, self.anchored
        if anchored and os.path.exists(self._path(epoch)):
            if not os.path.exists(self._path(epoch + 1)):
                return epoch
        try:
            self._look()
        except OSError:
            self.anchored = self.known = False
            return self._epoch
        if anchor and not self.anchored:
            try:
                files.ensure_directory(self._directory)
                files.close(files.open_append(self._path(self._epoch)))
                self._look()
            except OSError:
                pass  # a look at the directory each time does as well
        return self._epoch

    def _look(self) -> None:
        epochs = self._epochs()
        # A lost mark never leads back: an epoch seen once stays refused.
        self._note(epochs[-1] if epochs else -1, anchored=bool(epochs))
        self.known = True

    def refuse(self, now: float) -> None:
        """Begin a new epoch, for this process in any case; raises ``OSError`` where the mark cannot be left.

        Where there is no mark it is numbered by the time, Unix milliseconds: behind any that was lost. Others may
        look, anchor or refuse in the middle of it, so all of it happens in locals until the mark stands.
        """
        try:
            files.check_directory(self._directory or "")
        except OSError as error:
            self._note(max(self._epoch + 1, _numbered_by(now)), anchored=False)
            if isinstance(error, (FileNotFoundError, NotADirectoryError)):
                return  # nothing is there to be refused
            raise
        try:
            epoch, old = self._mark(now)
        except BaseException:
            try:
                self._look()
            except OSError:
                pass  # the epoch that is known must do
            self._note(self._epoch + 1, anchored=False)
            raise
        self._note(epoch, anchored=True)
        try:
            files.sync_directory(self._directory or "")
        finally:
            for lower in old:
                if not files.remove(self._path(lower)):
                    break

    def _mark(self, now: float) -> tuple[int, list[int]]:
        """Put a new mark above all others: (its epoch, those that stood there before)."""
        for _ in range(ROUNDS):
            old = self._epochs()
            epoch = max(self._epoch, old[-1] if old else _numbered_by(now)) + 1
            path = self._path(epoch)
            if not names.is_ours(os.path.basename(path)):
                raise OSError(errno.EOVERFLOW, "no epoch is left", path)
            try:
                self._create(path, old)
                # Others may have refused, and tidied up, since we looked: ours must be the newest.
                if self._epochs()[-1] == epoch:
                    return epoch, old
                files.remove(path)
            except (FileExistsError, IndexError):
                pass  # somebody else's refusal, begun before ours; or erased at this very moment
        raise OSError(errno.EAGAIN, "others refuse without end", self._directory)

    def _create(self, path: str, old: list[int]) -> None:
        """A new mark; where the disk has no room for a file the newest old one takes its name."""
        try:
            files.close(files.create(path))
        except FileExistsError:
            raise
        except OSError:
            if not old or os.path.lexists(path):
                raise
            os.rename(self._path(old[-1]), path)


def _numbered_by(now: float) -> int:
    """Unix milliseconds, within what a mark's name can say."""
    return int(max(0.0, min(now, 1e11)) * 1000)
