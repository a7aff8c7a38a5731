"""Calls home from a desktop product; keeps what it could not send; believes only signed answers.

A product makes one ``Agent`` of a ``Config`` and calls ``call_home()`` at its start. The public names:

    Agent           records, delivers in the background, and tells what became of it
    Config          all settings, with the endpoints: GetKeyManager (licences), Reo (usage, with consent)
    PublicKey       a key that answers are signed with; Keyring: keys that a signed document can replace
    Outcome         how one record ended, for ``on_outcome``; DeliveryReport: what ``flush`` gives
    verify          checks a saved answer and gives its Receipt
    erase           removes all state of a configuration
    main            the command line, for a frozen product; else ``python -m`` with this package's name
    deliver_detached  what a ``detached_command`` calls
    dns_domain      the machine's DNS domain, for those who pass it to Reo
    AgentError      the root of ConfigError and EventError (mistakes of the caller) and of VerificationError, which is
                    SignatureInvalid, AnswerStale, EnvelopeMalformed, CodeUnknown or Unverifiable

Nothing is loaded until a name is used: importing this package costs one small module.
"""

__version__ = "0.1.0"

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .cli import main as main  # type: ignore[import-not-found,unused-ignore]
    from .client import Agent as Agent
    from .config import Config as Config, GetKeyManager as GetKeyManager, Reo as Reo
    from .errors import (
        AgentError as AgentError,
        AnswerStale as AnswerStale,
        CodeUnknown as CodeUnknown,
        ConfigError as ConfigError,
        EnvelopeMalformed as EnvelopeMalformed,
        EventError as EventError,
        SignatureInvalid as SignatureInvalid,
        Unverifiable as Unverifiable,
        VerificationError as VerificationError,
    )
    from .extras.detached import (  # type: ignore[import-not-found,unused-ignore]
        deliver_detached as deliver_detached,
    )
    from .extras.domain import (  # type: ignore[import-not-found,unused-ignore]
        dns_domain as dns_domain,
    )
    from .extras.keyring import Keyring as Keyring  # type: ignore[import-not-found,unused-ignore]
    from .looking import erase as erase
    from .signatures.envelope import Receipt as Receipt, verify as verify
    from .signatures.keys import PublicKey as PublicKey
    from .values import DeliveryReport as DeliveryReport, Outcome as Outcome

# Where the public names live, relative to this package.
_HOMES = {
    "client": "Agent",
    "config": "Config GetKeyManager Reo",
    "errors": "AgentError AnswerStale CodeUnknown ConfigError EnvelopeMalformed EventError"
    " SignatureInvalid Unverifiable VerificationError",
    "signatures.envelope": "Receipt verify",
    "signatures.keys": "PublicKey",
    "values": "DeliveryReport Outcome",
}
# Of parts that a copy may lack, or an updater may have taken away before they were needed.
_PARTS = {
    "erase": "looking",
    "main": "cli",
    "deliver_detached": "detached",
    "dns_domain": "domain",
    "Keyring": "keyring",
}

__all__ = sorted([*" ".join(_HOMES.values()).split(), *_PARTS])  # type: ignore[unused-ignore]


if not TYPE_CHECKING:  # to a type checker any name would be one of ours

    def __getattr__(name):
        if name not in __all__:
            # ``import package.module`` and ``from package import module`` do not come here.
            raise AttributeError("module %r has no attribute %r" % (__name__, name))
        home = [home for home, names in _HOMES.items() if name in names.split()]
        module = __import__(home[0] if home else "errors", globals(), None, ("*",), 1)
        value = getattr(module, name) if home else module.optional(name, _PARTS[name])
        globals()[name] = value
        return value


def __dir__():  # type: ignore[no-untyped-def]
    return sorted({*globals(), *__all__})
