"""The door to the command line: ``python -m`` with this package's name, whatever that is."""

from __future__ import annotations

if __name__ == "__main__":
    from .cli import main

    raise SystemExit(main())
