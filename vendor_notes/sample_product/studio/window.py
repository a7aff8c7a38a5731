"""The main window: a sketch pad that counts strokes and exports, where the user allowed it."""

from __future__ import annotations

import tkinter as tk
from tkinter import filedialog, ttk

from . import calling_home, dialogs

COLOURS = ("#1f2933", "#c2410c", "#0f766e", "#1d4ed8")
STATUS_EVERY_MS = 1000


class Window(tk.Tk):
    """Studio."""

    def __init__(self) -> None:
        super().__init__()
        self.agent = calling_home.start()
        self.title("Acme Studio")
        self.geometry("560x380")
        ttk.Style().theme_use("clam")
        self.colour = tk.StringVar(value=COLOURS[0])
        self.usage = tk.BooleanVar(value=bool(calling_home.settings().get("usage")))
        self.status = tk.StringVar()
        self._build_bars()
        self.canvas = tk.Canvas(self, background="white", highlightthickness=0)
        self.canvas.pack(fill="both", expand=True)
        self.canvas.bind("<Button-1>", self._begin)
        self.canvas.bind("<B1-Motion>", self._draw)
        self.canvas.bind("<ButtonRelease-1>", lambda _: self.agent.count("STROKE"))
        self.bind("<F1>", lambda _: dialogs.Sent(self, self.agent))
        self.bind("<Control-q>", lambda _: self.leave())
        self.protocol("WM_DELETE_WINDOW", self.leave)
        self._show_status()

    def _build_bars(self) -> None:
        top, bottom = ttk.Frame(self, padding=6), ttk.Frame(self, padding=6)
        top.pack(side="top", fill="x")
        bottom.pack(side="bottom", fill="x")
        for colour in COLOURS:
            tk.Radiobutton(
                top, background=colour, activebackground=colour, selectcolor=colour, value=colour,
                variable=self.colour, indicatoron=False, width=3, borderwidth=3,
            ).pack(side="left", padx=2)  # fmt: skip
        for text, command in (
            ("What do we send?", lambda: dialogs.Sent(self, self.agent)),
            ("Licence…", lambda: dialogs.Licence(self, self.agent)),
            ("Export…", self._export),
        ):
            ttk.Button(top, text=text, command=command).pack(side="right", padx=2)
        allow = ttk.Checkbutton(bottom, text="Send usage data", variable=self.usage)
        allow.configure(command=self._set_consent)
        allow.pack(side="left")
        ttk.Label(bottom, textvariable=self.status).pack(side="right")

    def _set_consent(self) -> None:
        calling_home.save(usage=self.usage.get())
        self.agent.set_usage_consent(self.usage.get())

    def _begin(self, event: tk.Event[tk.Canvas]) -> None:
        place, colour = (event.x, event.y) * 2, self.colour.get()
        self.stroke = self.canvas.create_line(*place, fill=colour, width=4, capstyle="round")

    def _draw(self, event: tk.Event[tk.Canvas]) -> None:
        self.canvas.coords(self.stroke, *self.canvas.coords(self.stroke), event.x, event.y)

    def _export(self) -> None:
        path = filedialog.asksaveasfilename(parent=self, defaultextension=".svg")
        if not path:
            return
        shape, lines = '<polyline fill="none" stroke="%s" stroke-width="4" points="%s"/>\n', []
        for stroke in self.canvas.find_all():
            points = " ".join(map(str, self.canvas.coords(stroke)))
            lines.append(shape % (self.canvas.itemcget(stroke, "fill"), points))
        with open(path, "w", encoding="utf-8") as file:
            file.write('<svg xmlns="http://www.w3.org/2000/svg">%s</svg>\n' % "".join(lines))
        self.agent.track("EXPORT", meta={"format": "svg", "strokes": len(lines)})

    def _show_status(self) -> None:
        state = self.agent.status()
        reasons = {one["reason"].partition(":")[0] for one in state["endpoints"] if one["reason"]}
        waits = "%d to be sent" % state["pending"] if state["pending"] else "everything is sent"
        self.status.set(": ".join([waits, *sorted(reasons)]))
        self.after(STATUS_EVERY_MS, self._show_status)

    def leave(self) -> None:
        """Quit; what is not sent waits for the next start."""
        self.agent.close()
        self.destroy()
