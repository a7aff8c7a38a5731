"""Odd secrets, every spelling of them, and a search for them in whatever a product says and leaves behind.

``Canaries(style)`` makes one set of odd secrets; ``search`` finds them in bytes, texts, values and directories, however
they are spelled: percent-encoded, in JSON, in a Python literal, in base64, in hexadecimal, in another case, or cut.
``Heard`` collects what one product says while it runs. In a test::

    canaries = Canaries("punctuation")
    with canaries.listening(state_dir) as heard:
        ...  # run a product that uses canaries.api_key, canaries.licence, canaries.proxy_url("127.0.0.1", port)
        heard.add("status", product.status())
    heard.is_clean()

A licence key and its activation identifier may stand in their record on disk, and nowhere else; ``search`` knows these
two fields of a record and looks at everything around them.
"""

from __future__ import annotations

import base64
import contextlib
import html
import io
import json
import logging
import os
import pickle
import tempfile
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Union
from urllib.parse import quote, quote_plus

import agent
from agent import lines

# Per style: what the secrets of a set are like. An API key is printable ASCII without spaces; a licence key,
# an activation identifier, and a proxy's user and password may be anything.
STYLES: dict[str, str] = {
    "short": "k#7~",
    "punctuation": "p%41:q@r/s?t&u=v#w+x;y,z!",
    "quotes": "q\"u'o`t<e>\\n\\\\u0041{}[]|^$",
    "spaces": "two  spaces and  more",
    "unicode": "clé-ключ-鍵-\U0001f511",
    "long": "long-" + "Ab9_" * 45,
}
# From here on a piece of a secret is one too.
PIECE_CHARS = 12
# Fewer characters out of letters and digits alone turn up by chance in keys and signatures.
TELLING_CHARS = 8
# What of a record on disk may hold a licence.
LICENCE_FIELDS = ("license_key", "activation_identifier")
SAFE = ("", "/", "*", "!$&'()*+,;=:", "-._~!$&'()*+,;=:@/")
Thing = Union[bytes, str, Path, BaseException, object]


def spellings(secret: str) -> tuple[set[bytes], set[bytes]]:
    """Everything that ``secret`` can look like in bytes: what is the same in any case, and what is not (base64)."""
    found: set[bytes] = set()
    exact: set[bytes] = set()
    cut = len(secret) >= 2 * PIECE_CHARS
    for piece in (secret, *([secret[:PIECE_CHARS], secret[-PIECE_CHARS:]] if cut else [])):
        raw = piece.encode("utf-8")
        found |= {text.encode("utf-8").lower() for text in _written(piece)}
        found |= {piece.encode("utf-16-le").lower(), raw.hex().encode()}
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            exact |= {_aligned(raw, shift, encode) for shift in range(3)}
    return (
        {n for n in found if len(n.replace(b"\0", b"")) >= (TELLING_CHARS if n.isalnum() else 4)},
        {n for n in exact if len(n) >= TELLING_CHARS},
    )


def _written(text: str) -> Iterator[str]:
    """How programs write a text; in which case is all one."""
    yield text
    yield text.upper()
    yield from (quote(text, safe=safe) for safe in SAFE)
    yield quote_plus(text)
    yield quote_plus(text, safe="*").replace("~", "%7E")
    yield quote(quote(text, safe=""), safe="")
    for ascii_only in (True, False):
        once = json.dumps(text, ensure_ascii=ascii_only)[1:-1]
        yield from (once, once.replace("/", "\\/"))
        yield json.dumps(once, ensure_ascii=ascii_only)[1:-1]
    yield repr(text)[1:-1]
    yield json.dumps(repr(text)[1:-1])[1:-1]
    yield repr(text.encode())[2:-1]
    yield ascii(text)[1:-1]
    yield text.encode("ascii", "backslashreplace").decode()
    yield html.escape(text)


def _aligned(raw: bytes, shift: int, encode: Any) -> bytes:
    """The characters of base64 that say nothing but ``raw``, where ``shift`` bytes stand before it."""
    text: bytes = encode(b"\0" * shift + raw)
    return text[-(-shift * 8 // 6) : (shift + len(raw)) * 8 // 6]


class Canaries:
    """One set of secrets, all of one style, each different from the others."""

    def __init__(self, style: str = "punctuation") -> None:
        odd = STYLES[style]
        ascii_odd = odd if odd.isascii() and " " not in odd else STYLES["quotes"]
        if style == "long":  # SOCKS takes no more than 255 bytes of the others
            ascii_odd *= 5

        def secret(name: str, odd: str = odd) -> str:
            # So that neither its beginning nor its end is that of another.
            return odd + name[0] if style == "short" else "%s.%s.%s" % (name, odd, name)

        self.style = style
        self.api_key = secret("Akey1", ascii_odd)
        self.usage_api_key = secret("Ukey2", ascii_odd)
        self.licence_key = secret("Lkey3")
        self.activation_identifier = secret("Token4")
        self.proxy_user = secret("person5", odd.replace(":", ""))  # RFC 7617: no colon
        self.proxy_password = secret("Word6")
        self.secrets = {
            name.replace("_", " "): value for name, value in vars(self).items() if name != "style"
        }
        self.licence = (self.licence_key, self.activation_identifier)
        self.proxy_auth = "%s:%s" % (self.proxy_user, self.proxy_password)
        # What a proxy must be told: the credentials of Basic (RFC 7617).
        self.basic = base64.b64encode(self.proxy_auth.encode())
        self._spellings = {name: spellings(value) for name, value in self.secrets.items()}
        self._spellings["proxy password"][1].add(self.basic)

    def proxy_url(self, host: str, port: int, scheme: str = "http") -> str:
        """The address of a proxy with user and password, as ``Config(proxy=...)`` and HTTPS_PROXY take it."""
        user, password = quote(self.proxy_user, safe=""), quote(self.proxy_password, safe="")
        return "%s://%s:%s@%s:%d" % (scheme, user, password, host, port)

    def search(
        self, thing: Thing, where: str = "", but: tuple[str, ...] = ()
    ) -> set[tuple[str, str]]:
        """(which secret, where) in bytes, texts, exceptions, any value, files and directories; not those of ``but``."""
        found = set()
        for place, data in _parts(thing, where):
            lower = data.lower()
            for name, (needles, exact) in self._spellings.items():
                if name not in but and (
                    any(n in lower for n in needles) or any(n in data for n in exact)
                ):
                    found.add((name, place))
        return found

    @contextlib.contextmanager
    def listening(self, *directories: Path, to: str = "logging") -> Iterator[Heard]:
        """Collects what this process says meanwhile: every log record at DEBUG, stdout, stderr, AGENT_DEBUG.

        Our own lines go ``to`` one place: "logging", or "stderr" as where a product does not want them in its log.
        """
        heard = Heard(self, directories)
        root, own = logging.getLogger(), logging.getLogger(agent.__name__)
        level, said = root.level, os.environ.get("AGENT_DEBUG", "")
        root.addHandler(heard.handler)
        root.setLevel(logging.DEBUG)
        own.setLevel(logging.DEBUG if to == "logging" else logging.INFO)
        os.environ["AGENT_DEBUG"] = "1"
        try:
            with contextlib.redirect_stdout(heard.out), contextlib.redirect_stderr(heard._err):
                yield heard
        finally:
            assert heard.err is heard._said
            heard._err.close()
            root.removeHandler(heard.handler)
            root.setLevel(level)
            own.setLevel(logging.NOTSET)
            os.environ["AGENT_DEBUG"] = said


class Heard:
    """What a product said and left behind; ``add`` takes anything else that somebody may get to see."""

    def __init__(self, canaries: Canaries, directories: tuple[Path, ...]) -> None:
        self.canaries, self.directories = canaries, directories
        self.out, self.handler = io.StringIO(), _Collecting()
        self._err = tempfile.TemporaryFile(
            "w+", encoding="utf-8"
        )  # AGENT_DEBUG goes to its descriptor
        self._found: set[tuple[str, str]] = set()

    @property
    def err(self) -> str:
        """What came to stderr."""
        if not self._err.closed:
            self._err.seek(0)
            self._said = self._err.read()
        return self._said

    @property
    def lines(self) -> str:
        """What our own logger or AGENT_DEBUG told."""
        return "\n".join(self.handler.own) + self.err

    def add(self, where: str, thing: Thing, but: tuple[str, ...] = ()) -> None:
        """Something more to search, and which secrets may be in it."""
        self._found |= self.canaries.search(thing, where, but)

    def findings(self) -> set[tuple[str, str]]:
        """Every secret where it does not belong."""
        self.add("stdout", self.out.getvalue())
        self.add("stderr", self.err)
        self.add("logging", "\n".join(self.handler.texts))
        for directory in self.directories:
            self.add("", directory)
        return self._found

    def is_clean(self) -> None:
        """Raises ``AssertionError`` that names each secret found, without its value."""
        found = self.findings()
        assert not found, "\n".join("%s in %s" % each for each in sorted(found))


class _Collecting(logging.Handler):
    """Keeps everything that any handler could write of a record."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.texts: list[str] = []
        self.own: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.name == agent.__name__:
            self.own.append(record.getMessage())
        # Handlers of vendors (Sentry's, JSON ones) write the arguments, and whatever else is there.
        self.texts += [logging.Formatter("%(name)s %(message)s").format(record), repr(vars(record))]


def _parts(thing: Thing, where: str) -> Iterator[tuple[str, bytes]]:
    """(where, bytes) for everything that a person can see of ``thing``."""
    if isinstance(thing, bytes):
        yield where, thing
    elif isinstance(thing, str):
        yield where, thing.encode("utf-8", "surrogatepass")
    elif isinstance(thing, Path):
        for path in sorted(thing.rglob("*")) if thing.is_dir() else [thing]:
            yield "the name of a file", os.fsencode(path)
            if path.is_file() and not path.is_symlink():
                data = path.read_bytes()
                if path.suffix == ".seg" or b'"k":"export"' in data[:200]:
                    data = b"\n".join(map(_without_licence, data.split(b"\n")))
                yield str(path), data
    else:
        seen = list(dict.fromkeys([repr(thing), str(thing)]))
        if isinstance(thing, BaseException):  # its frames' variables are the host's own affair
            seen += [
                repr(vars(thing)),
                *traceback.format_exception(type(thing), thing, thing.__traceback__),
            ]
        with contextlib.suppress(Exception):
            yield where, (
                pickle.dumps(thing)
                if isinstance(thing, BaseException)
                else json.dumps(thing).encode()
            )
        for text in seen:
            yield where, text.encode("utf-8", "surrogatepass")


def _without_licence(line: bytes) -> bytes:
    """A record's line but for the two fields that may hold a licence; of a damaged one nothing tells where they are."""
    value: Any = lines.decode(line)
    body = value.get("b") if isinstance(value, dict) else None
    if isinstance(body, dict) and value.get("k") == "licence":
        value["b"] = {name: body[name] for name in body if name not in LICENCE_FIELDS}
    return line if value is None else json.dumps(value).encode()


def shown_of_request(request: bytes) -> bytes:
    """What of a request everybody on its way may keep: its first line and all headers but those with credentials."""
    hidden = (b"proxy-authorization:", b"x-api-key:")
    head = request.partition(b"\r\n\r\n")[0].split(b"\r\n")
    return b"\n".join(line for line in head if not line.lower().startswith(hidden))
