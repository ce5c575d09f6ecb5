"""What was measured, as the table of docs/performance.md."""

import datetime
import os
import pathlib
import platform
import re
import statistics
import subprocess

from . import data_server
from .harness import file_system, fsync_milliseconds
from .upload import OFFICIAL

BEGIN, END = "<!-- made by scripts/bench -->", "<!-- end of what scripts/bench made -->"


class Result:
    """All figures of one case."""

    def __init__(self, case, figures):
        self.case, self.figures = case, figures

    def median(self, side, field):
        return statistics.median(getattr(figures, field) for figures in self.figures[side])

    def seconds(self, side):
        return self.median(side, "seconds")

    def memory(self, side):
        return self.median(side, "megabytes")

    def note(self, side, name):
        return statistics.median(figures.notes[name] for figures in self.figures[side])

    @property
    def ratio(self):
        """How many times as fast as the peer."""
        return self.seconds("peer") / self.seconds("ours")


def duration(seconds):
    return f"{seconds * 1000:.1f} ms" if seconds < 0.1 else f"{seconds:.2f} s"


def rate(result, side):
    if not (result.case.amount and result.case.unit):
        return duration(result.seconds(side))
    each = result.case.amount / result.seconds(side)
    return f"{duration(result.seconds(side))}, {each:,.0f} {result.case.unit}/s"


def notes(result, side):
    names = {name for figures in result.figures[side] for name in figures.notes}
    return "".join(f", {result.note(side, name):g} {name}" for name in sorted(names))


def cells(result):
    case, has_peer = result.case, bool(result.figures["peer"])
    met = case.is_met(result)
    ours = rate(result, "ours") + notes(result, "ours") if result.seconds("ours") else notes(result, "ours")[2:]
    memory = [f"{result.memory(side):.0f}" for side in ("ours", "peer") if result.figures[side] and result.memory(side)]
    return [
        case.name,
        case.ours_name,
        ours,
        case.peer_name if has_peer else "—",
        rate(result, "peer") + notes(result, "peer") if has_peer else "",
        f"{result.ratio:.1f} ×" if has_peer and case.compares_time else "",
        " / ".join(memory),
        case.target,
        {True: "yes", False: "no", None: "?"}[met],
    ]


def line(result):
    return "| " + " | ".join(cells(result)) + " |"


def processor():
    for text in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if text.startswith("model name"):
            return text.split(":", 1)[1].strip()
    return platform.machine()


def machine(bench):
    memory = re.search(r"MemTotal:\s*(\d+)", pathlib.Path("/proc/meminfo").read_text())
    median, high = fsync_milliseconds(bench.home)
    rustc = subprocess.run(["rustc", "--version"], capture_output=True, text=True).stdout.strip()
    return (
        f"{datetime.date.today()}: {os.cpu_count()} cores of {processor()}, {int(memory[1]) / 2**20:.0f} GiB of memory, "
        f"{platform.system()} {platform.release()}, {file_system(bench.home)}; "
        f"an fsync of 4 KiB takes {median:.2f} ms (median; 95 % within {high:.2f} ms). "
        f"{rustc}; Python {platform.python_version()}; `{data_server.VERSION}`, `{OFFICIAL}`."
    )


def document(results, bench, minutes):
    head = ["case", "we run", "ours", "beside it", "the peer", "as fast", "peak MB, ours / peer", "target", "met"]
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head), *map(line, results)]
    return (
        f"{machine(bench)} Medians of at least five rounds in turn "
        f"(one of watches, where memory alone is compared, and where the peer needs minutes), {minutes:.0f} minutes in all.\n\n" + "\n".join(lines)
    )


def write_between_markers(document, text):
    content = document.read_text()
    before, rest = content.split(BEGIN)
    _, after = rest.split(END)
    document.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}")
