"""The two dialogs: the licence, and what is sent."""

from __future__ import annotations

import json
import tkinter as tk
from datetime import datetime
from tkinter import ttk
from typing import Any, Dict
from urllib.parse import unquote_plus

from . import calling_home


class Licence(tk.Toplevel):
    """Asks for a licence key and the name of this activation."""

    def __init__(self, parent: tk.Tk, agent: calling_home.Agent) -> None:
        super().__init__(parent)
        self.title("Licence")
        self.transient(parent)
        self._agent = agent
        known = calling_home.settings().get("licence") or ("", "")
        frame = ttk.Frame(self, padding=12)
        frame.pack(fill="both", expand=True)
        self._fields = [tk.StringVar(value=text) for text in known]
        for row, (label, field) in enumerate(zip(("Key", "Activation"), self._fields)):
            ttk.Label(frame, text=label).grid(row=row, column=0, sticky="w", padx=(0, 8), pady=3)
            ttk.Entry(frame, textvariable=field, width=36).grid(row=row, column=1)
        ttk.Button(frame, text="Use", command=self._use).grid(column=1, sticky="e", pady=(8, 0))
        self.bind("<Return>", lambda _: self._use())

    def _use(self) -> None:
        key, activation = (field.get().strip() for field in self._fields)
        calling_home.save(licence=[key, activation] if key else [])
        self._agent.set_license((key, activation) if key else None)
        self.destroy()


class Sent(tk.Toplevel):
    """Shows the exact requests, those that wait or one of each kind, and the last answers."""

    def __init__(self, parent: tk.Tk, agent: calling_home.Agent) -> None:
        super().__init__(parent)
        self.title("What do we send?")
        self.geometry("620x360")
        self.bind("<Escape>", lambda _: self.destroy())
        ttk.Button(self, text="Close", command=self.destroy).pack(side="bottom", pady=(0, 6))
        book = ttk.Notebook(self, padding=6)
        book.pack(fill="both", expand=True)
        text = tk.Text(book, wrap="word", padx=10, pady=8, borderwidth=0, font="TkFixedFont")
        text.tag_configure("title", font="TkHeadingFont", foreground="#0f766e")
        for request in agent.preview(samples=True):
            text.insert("end", _title(request), "title", _shown(request))
        text.configure(state="disabled")
        book.add(text, text="Requests")
        answers = ttk.Treeview(book, columns=("to", "verdict", "why"))
        for column, title, width in (
            *(("#0", "Answered", 150), ("to", "By", 120), ("verdict", "Outcome", 100)),
            ("why", "Because", 220),
        ):
            answers.heading(column, text=title, anchor="w")
            answers.column(column, width=width)
        for answer in agent.history():
            at = datetime.fromtimestamp(answer["at"]).strftime("%Y-%m-%d %H:%M:%S")
            row = (answer["endpoint"], answer["verdict"], answer["reason"])
            answers.insert("", 0, text=at, values=row)
        book.add(answers, text="Answers")


def _title(request: Dict[str, Any]) -> str:
    state = "for example" if request["sample"] else "waits to be sent"
    return "%s to %s, %s\n" % (request["purpose"].capitalize(), request["endpoint"], state)


def _shown(request: Dict[str, Any]) -> str:
    lines = ["%s %s" % (request["method"], request["url"])]
    lines += ["%s: %s" % header for header in request["headers"].items()]
    body = request["body"]
    if body.startswith("{"):
        body = json.dumps(json.loads(body), indent=2)
    else:
        body = unquote_plus(body).replace("&", "\n")
    return "\n".join([*lines, "", body, "", ""])
