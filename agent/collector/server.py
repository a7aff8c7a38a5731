"""``Collector``: the reference collector as an object, for tests and for ``serve``.

It puts the desk (what is known, received and switched on) behind a listener on loopback. Started and closed any number
of times; the port stays the same, and what it received stays too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Callable, Dict, List, Mapping, Optional, Tuple, Union

from ..clock import Clock
from ..errors import ConfigError
from .desk import Desk
from .faults import Fault
from .getkeymanager import ApiKeys, Products, catalogue
from .handler import Handler
from .listener import Connection, Listener
from .signing import Keys

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Iterable, Type

    from ..signatures.keys import PublicKey

API_KEYS = ("demo-api-key",)
LICENSE_KEYS = ("demo-license-key",)
PRODUCTS: Mapping[str, Tuple[str, ...]] = {"42": ("5.2.5",)}


class Collector:
    """All three endpoints on loopback, signed as upstream signs, with faults on demand.

    ``api_keys``: those accepted, or a mapping to the code that refuses each (100 to 103, 150; None accepts); the same
    keys serve Reo. ``products``: product id → versions. ``clock``: an object with ``time()``, or a callable giving Unix
    seconds. ``reo_failure_status``: the HTTP status of Reo's authentication failure, which no document gives.
    ``log``: called with one line per request, on a thread of the collector.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        algorithm: str = "rsa",
        api_keys: ApiKeys = API_KEYS,
        license_keys: Iterable[str] = LICENSE_KEYS,
        products: Products = PRODUCTS,
        fault: Optional[str] = None,
        clock: Union[Clock, Callable[[], float], None] = None,
        answer_delay_s: float = 0.0,
        drip_interval_s: float = 0.2,
        reo_failure_status: int = 401,
        redirect_to: Optional[str] = None,
        log: Optional[Callable[[str], None]] = None,
    ) -> None:
        if host not in ("127.0.0.1", "localhost"):
            raise ConfigError("the collector serves 127.0.0.1 only, not %r" % (host,), "host")
        clock = Clock() if clock is None else clock
        self._desk = Desk(
            keys=Keys(algorithm),
            known=catalogue(api_keys, license_keys, products),
            now=clock.time if hasattr(clock, "time") else clock,
            answer_delay_s=answer_delay_s,
            drip_interval_s=drip_interval_s,
            reo_failure_status=reo_failure_status,
            redirect_to=redirect_to,
            log=log,
        )
        self._listener = Listener("127.0.0.1", port, self._serve)
        self._desk.release_held = self._listener.release_held
        self._started = self._port_refused = False
        self.fault(fault)

    def __enter__(self) -> Collector:
        return self.start()

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        self.close()

    def start(self) -> Collector:
        """Open the port and serve; ``OSError`` where it is taken."""
        if not self._started:
            self._listener.reserve()
            self._desk.port = self._listener.port
            self._started = True
            self._settle_port()
        return self

    def close(self) -> None:
        """Give back every thread and socket, whatever clients are doing."""
        self._started = False
        self._listener.close()

    @property
    def url(self) -> str:
        """``http://127.0.0.1:PORT``; known once started."""
        if not self._listener.port:
            raise RuntimeError("the collector has no port before it is started")
        return "http://127.0.0.1:%d" % self._listener.port

    @property
    def keys(self) -> List[Dict[str, str]]:
        """The keys to trust: the one in use from the start, then one published for a rotation."""
        return [signer.describe() for signer in self._desk.keys.published]

    @property
    def public_keys(self) -> Tuple[PublicKey, ...]:
        """The same keys, ready for a configuration."""
        from ..signatures.keys import PublicKey

        return tuple(PublicKey.from_pem(key["public_key"], name=key["name"]) for key in self.keys)

    def use_key(self, key: Union[int, str]) -> None:
        """Sign with another published key, by index or name, from the next answer on."""
        self._desk.keys.use(key)

    def records(self) -> List[Dict[str, Any]]:
        """What was taken in, in order of arrival, shaped as in ``GET /_collector/records``."""
        return self._desk.book.records()

    def requests(self) -> List[Dict[str, Any]]:
        """Every request seen, those that a fault swallowed included."""
        return self._desk.book.requests()

    def fault(
        self,
        name: Optional[str],
        endpoint: Optional[str] = None,
        count: Optional[int] = None,
        *,
        keep_port: bool = False,
        **options: Any,
    ) -> None:
        """Switch a fault on for one endpoint or all, for ``count`` requests or until cleared; None switches off.

        Options are those of ``Fault``: retry_after, status, redirect_to, age_s. "refuse" without endpoint and count
        closes the port itself; with one of them, with ``keep_port`` and over HTTP each request's connection is reset
        instead, so that the control API stays within reach. ``ConfigError``, a ``ValueError``, names what is known.
        """
        if name is None:
            self._desk.clear(endpoint)
        else:
            self._desk.arm(Fault(name, endpoint, count, **options))
        if endpoint is None:
            self._port_refused = name == "refuse" and count is None and not keep_port
            self._settle_port()

    def clear(self) -> None:
        """As freshly started: no fault, no record, no request."""
        self.fault(None)
        self._desk.book.forget(records=True, requests=True)

    @property
    def redirect_to(self) -> Optional[str]:
        """Where "redirect" points to; None: another path under another name of this host."""
        return self._desk.redirect_to

    @redirect_to.setter
    def redirect_to(self, url: Optional[str]) -> None:
        self._desk.redirect_to = url

    @property
    def answer_delay_s(self) -> float:
        """How long every answer is held back."""
        return self._desk.answer_delay_s

    @answer_delay_s.setter
    def answer_delay_s(self, seconds: float) -> None:
        self._desk.answer_delay_s = seconds

    def _serve(self, client: Connection) -> None:
        Handler(client, self._desk)

    def _settle_port(self) -> None:
        if self._started and self._port_refused:
            self._listener.refuse()
        elif self._started:
            self._listener.listen()
