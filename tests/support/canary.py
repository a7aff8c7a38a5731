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
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, Union
from urllib.parse import quote, quote_plus

import agent
from agent import jsonline, story
from agent.spool import names

# Per style: what the secrets of a set are like. An API key is printable ASCII without spaces around it; a licence key,
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
Thing = Union[bytes, bytearray, str, Path, BaseException, object]


class Finding(NamedTuple):
    """One secret that was found where it does not belong."""

    secret: str  # which one, never its value
    spelling: str
    where: str
    offset: int

    def __str__(self) -> str:
        return "%s, %s, in %s at byte %d" % (self.secret, self.spelling, self.where, self.offset)


def spellings(secret: str) -> dict[bytes, str]:
    """Everything that ``secret`` can look like in bytes -> the name of that spelling."""
    found: dict[bytes, str] = {}
    for piece, of in _pieces(secret):
        for name, text in _written(piece):
            found.setdefault(text.encode("utf-8", "surrogatepass"), of + name)
        raw = piece.encode("utf-8", "surrogatepass")
        found.setdefault(piece.encode("utf-16-le", "surrogatepass"), of + "UTF-16")
        found.setdefault(raw.hex().encode(), of + "hexadecimal")
        for shift in range(3):
            for name, encode in (
                ("base64", base64.b64encode),
                ("base64url", base64.urlsafe_b64encode),
            ):
                found.setdefault(_aligned(raw, shift, encode), of + name)
    return {needle: name for needle, name in found.items() if _is_telling(needle, name)}


def _pieces(secret: str) -> Iterator[tuple[str, str]]:
    yield secret, ""
    if len(secret) >= 2 * PIECE_CHARS:
        yield secret[:PIECE_CHARS], "its beginning, "
        yield secret[-PIECE_CHARS:], "its end, "


def _written(text: str) -> Iterator[tuple[str, str]]:
    """How programs write a text, by name."""
    yield "plain", text
    yield "in capitals", text.upper()
    yield "in small letters", text.lower()
    for safe in ("", "/", "*", "!$&'()*+,;=:", "-._~!$&'()*+,;=:@/"):
        yield "percent-encoded", quote(text, safe=safe, errors="surrogatepass")
    yield "form-encoded", quote_plus(text, errors="surrogatepass")
    yield "form-encoded", quote_plus(text, safe="*", errors="surrogatepass").replace("~", "%7E")
    twice = quote(quote(text, safe="", errors="surrogatepass"), safe="")
    yield "percent-encoded twice", twice
    for ascii_only in (True, False):
        once = json.dumps(text, ensure_ascii=ascii_only)[1:-1]
        yield "JSON", once
        yield "JSON in JSON", json.dumps(once, ensure_ascii=ascii_only)[1:-1]
        yield "JSON with \\/", once.replace("/", "\\/")
    yield "repr", repr(text)[1:-1]
    yield "repr in JSON", json.dumps(repr(text)[1:-1])[1:-1]
    yield "repr of bytes", repr(text.encode("utf-8", "surrogatepass"))[2:-1]
    yield "ASCII", ascii(text)[1:-1]
    yield "backslashes", text.encode("ascii", "backslashreplace").decode()
    yield "HTML", html.escape(text)


def _aligned(raw: bytes, shift: int, encode: Any) -> bytes:
    """The characters of base64 that say nothing but ``raw``, where ``shift`` bytes stand before it."""
    text: bytes = encode(b"\0" * shift + raw)
    return text[-(-shift * 8 // 6) : (shift + len(raw)) * 8 // 6]


def _is_telling(needle: bytes, name: str) -> bool:
    plain = needle.replace(b"\0", b"")
    return len(plain) >= (TELLING_CHARS if plain.isalnum() or "base64" in name else 4)


class Canaries:
    """One set of secrets, all of one style, each different from the others."""

    def __init__(self, style: str = "punctuation") -> None:
        odd = STYLES[style]
        ascii_odd = odd if odd.isascii() else STYLES["quotes"]
        if style == "long":  # SOCKS takes no more than 255 bytes of the others
            ascii_odd *= 5
        self.style = style

        def secret(name: str, odd: str = odd) -> str:
            # So that neither its beginning nor its end is that of another.
            return odd + name[0] if style == "short" else "%s.%s.%s" % (name, odd, name)

        self.api_key = secret("Akey1", ascii_odd)
        self.usage_api_key = secret("Ukey2", ascii_odd)
        self.licence_key = secret("Lkey3")
        self.activation_identifier = secret("Token4")
        self.proxy_user = secret("person5", odd.replace(":", ""))  # RFC 7617: no colon
        self.proxy_password = secret("Word6")
        self.secrets: dict[str, str] = {
            "API key": self.api_key,
            "usage API key": self.usage_api_key,
            "licence key": self.licence_key,
            "activation identifier": self.activation_identifier,
            "proxy user": self.proxy_user,
            "proxy password": self.proxy_password,
        }

    @property
    def licence(self) -> tuple[str, str]:
        """What ``Agent(config, license_key)`` takes."""
        return self.licence_key, self.activation_identifier

    @property
    def proxy_auth(self) -> str:
        """``user:password`` as ``Config(proxy_auth=...)`` takes it."""
        return "%s:%s" % (self.proxy_user, self.proxy_password)

    def proxy_url(self, host: str, port: int, scheme: str = "http") -> str:
        """The address of a proxy with user and password, as ``Config(proxy=...)`` and HTTPS_PROXY take it."""
        user, password = quote(self.proxy_user, safe=""), quote(self.proxy_password, safe="")
        return "%s://%s:%s@%s:%d" % (scheme, user, password, host, port)

    @property
    def basic(self) -> bytes:
        """What a proxy must be told: the credentials of Basic (RFC 7617)."""
        return base64.b64encode(self.proxy_auth.encode())

    @property
    def spellings(self) -> dict[bytes, tuple[str, str]]:
        """What to look for -> (which secret, how it is spelled)."""
        if not hasattr(self, "_spellings"):
            found: dict[bytes, tuple[str, str]] = {}
            for secret, value in self.secrets.items():
                for needle, name in spellings(value).items():
                    found.setdefault(needle, (secret, name))
            found.setdefault(self.basic, ("proxy password", "Basic"))
            self._spellings = found
        return self._spellings

    def search(self, *things: Thing, but: tuple[str, ...] = (), where: str = "") -> list[Finding]:
        """The secrets in bytes, texts, exceptions, any value, files and whole directories; not those of ``but``."""
        found: list[Finding] = []
        for thing in things:
            for place, data, more in _parts(thing, where):
                found += self._in(data, place, {*but, *more})
        return found

    def _in(self, data: bytes, place: str, but: set[str]) -> Iterator[Finding]:
        lower = data.lower()
        for needle, (secret, name) in self.spellings.items():
            if secret in but:
                continue
            # Base64 of another case is another text.
            exact = "base64" in name or name == "Basic"
            at = data.find(needle) if exact else lower.find(needle.lower())
            if at >= 0:
                yield Finding(secret, name, place, at)

    @contextlib.contextmanager
    def listening(self, *directories: Path, to: str = "logging") -> Iterator[Heard]:
        """Collects what this process says meanwhile: every log record at DEBUG, stdout, stderr, AGENT_DEBUG.

        Our own lines go ``to`` one place: "logging", or "stderr" as where a product does not want them in its log.
        """
        heard = Heard(self, directories)
        story._shares.clear()  # what another test told is no reason to leave lines out
        root = logging.getLogger()
        level, said = root.level, os.environ.get("AGENT_DEBUG")
        own = logging.getLogger(agent.__name__)
        root.addHandler(heard.handler)
        root.setLevel(logging.DEBUG)
        own.setLevel(logging.DEBUG if to == "logging" else logging.INFO)
        os.environ["AGENT_DEBUG"] = "1"
        try:
            with contextlib.redirect_stdout(heard.out), contextlib.redirect_stderr(heard.err):
                yield heard
        finally:
            root.removeHandler(heard.handler)
            root.setLevel(level)
            own.setLevel(logging.NOTSET)
            if said is None:
                del os.environ["AGENT_DEBUG"]
            else:
                os.environ["AGENT_DEBUG"] = said


class Heard:
    """What a product said and left behind; ``add`` takes anything else that somebody may get to see."""

    def __init__(self, canaries: Canaries, directories: tuple[Path, ...]) -> None:
        self.canaries, self.directories = canaries, directories
        self.out, self.err = io.StringIO(), io.StringIO()
        self.handler = _Collecting()
        self.added: list[tuple[str, Thing, tuple[str, ...]]] = []

    @property
    def lines(self) -> list[str]:
        """The messages of our own logger."""
        return [text for name, text in self.handler.messages if name == agent.__name__]

    def add(self, where: str, thing: Thing, *, but: tuple[str, ...] = ()) -> None:
        """Something more to search, and which secrets may be in it."""
        self.added.append((where, thing, but))

    def findings(self) -> list[Finding]:
        """Every secret where it does not belong."""
        search = self.canaries.search
        found = search(self.out.getvalue(), where="stdout")
        found += search(self.err.getvalue(), where="stderr")
        found += search("\n".join(self.handler.texts), where="logging")
        for where, thing, but in self.added:
            found += search(thing, where=where, but=but)
        for directory in self.directories:
            found += search(directory)
        return found

    def is_clean(self) -> None:
        """Raises ``AssertionError`` that names each secret found, without its value."""
        found = self.findings()
        assert not found, "\n".join(map(str, found))


class _Collecting(logging.Handler):
    """Keeps everything that any handler could write of a record."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.texts: list[str] = []
        self.messages: list[tuple[str, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append((record.name, record.getMessage()))
        self.texts.append(logging.Formatter("%(name)s %(message)s").format(record))
        # Handlers of vendors (Sentry's, JSON ones) write the arguments, and whatever else is there.
        self.texts.append(repr(record.__dict__))


def _parts(thing: Thing, where: str) -> Iterator[tuple[str, bytes, tuple[str, ...]]]:
    """(where, bytes, which secrets may be there) for everything that a person can see of ``thing``."""
    if isinstance(thing, (bytes, bytearray)):
        yield where or "bytes", bytes(thing), ()
    elif isinstance(thing, str):
        yield where or "text", thing.encode("utf-8", "surrogatepass"), ()
    elif isinstance(thing, Path):
        for path in sorted(thing.rglob("*")) if thing.is_dir() else [thing]:
            yield "the name of a file", os.fsencode(path), ()
            if path.is_file() and not path.is_symlink():
                yield from _of_file(path)
    elif isinstance(thing, BaseException):
        place = where or type(thing).__name__
        for name, text in _of_error(thing):
            yield "%s of %s" % (name, place), text, ()
    else:
        place = where or type(thing).__name__
        yield "repr of " + place, repr(thing).encode("utf-8", "surrogatepass"), ()
        yield "str of " + place, str(thing).encode("utf-8", "surrogatepass"), ()
        try:
            yield "JSON of " + place, json.dumps(thing).encode(), ()
        except (TypeError, ValueError):
            pass


def _of_file(path: Path) -> Iterator[tuple[str, bytes, tuple[str, ...]]]:
    """A file; of one with records everything around the two fields that may hold a licence."""
    data = path.read_bytes()
    if path.name.endswith(names.SEGMENT) or b'"k":"export"' in data[:200]:
        data = b"\n".join(_without_licence(line) for line in data.split(b"\n"))
    yield str(path), data, ()


def _without_licence(line: bytes) -> bytes:
    value = jsonline.decode(line)
    body = value.get("b") if isinstance(value, dict) else None
    if value is None and line:
        return line  # damaged: nothing tells where its fields are
    if isinstance(body, dict) and value.get("k") == "licence":
        value["b"] = {name: body[name] for name in body if name not in LICENCE_FIELDS}
    return json.dumps(value).encode()


def _of_error(error: BaseException) -> Iterator[tuple[str, bytes]]:
    """What may be printed, sent on or kept of an exception; its frames' variables are the host's own affair."""
    yield "str", str(error).encode("utf-8", "surrogatepass")
    yield "repr", repr(error).encode("utf-8", "surrogatepass")
    yield "arguments", repr(error.args).encode("utf-8", "surrogatepass")
    yield "attributes", repr(vars(error)).encode("utf-8", "surrogatepass")
    text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    yield "traceback", text.encode("utf-8", "surrogatepass")
    try:
        yield "pickle", pickle.dumps(error)
    except Exception:  # one of the host's own
        pass


def seen_of_process(place: Path) -> dict[str, bytes]:
    """What everybody (arguments) and its user (environment) can see of a process."""
    found = {}
    for name in ("cmdline", "environ"):
        with contextlib.suppress(OSError):
            found[name] = (place / name).read_bytes()
    return found


def shown_of_request(request: bytes) -> bytes:
    """What of a request everybody on its way may keep: its first line and all headers but those with credentials."""
    lines = request.partition(b"\r\n\r\n")[0].split(b"\r\n")
    hidden = (b"proxy-authorization:", b"x-api-key:")
    return b"\n".join(line for line in lines if not line.lower().startswith(hidden))


if __name__ == "__main__":  # what is looked for, for one who doubts it
    for style in sys.argv[1:] or STYLES:
        for needle, (secret, name) in Canaries(style).spellings.items():
            print("%-12s %-22s %-28s %r" % (style, secret, name, needle))
