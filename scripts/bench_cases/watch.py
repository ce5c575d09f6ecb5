"""Watching: what it takes while nothing happens, and how late a row is on the server while something does.

The time of the processor is that of the process as the kernel keeps it, over a minute in which nothing begins or ends.
Training is played by `generate_events --live`: each run writes a step of ten scalars every 100 ms in one write, and says
when that was done; the fake server, on the same clock, says when it was sent what.
"""

import contextlib
import math
import os
import pathlib
import shutil
import signal
import statistics
import subprocess
import sys
import time

from .harness import Case, Figures, PROJECT, expect, family_peak, held, lines_held

TICK = os.sysconf("SC_CLK_TCK")
# An hour without a write makes a file quiet.
LONG_AGO = 2 * 3600
TAGS = 10
PAUSE_MS = 100


class Watch(Case):
    """What all cases share: a watch that is ended by Ctrl-C and must end well."""

    rounds = 1

    @contextlib.contextmanager
    def watching(self, bench, *arguments, env=None):
        """The process id of a watch."""
        command = [bench.binary, "watch", self.logs, "-p", PROJECT, *arguments]
        with open(bench.home / "last.log", "wb") as log:
            process = subprocess.Popen(
                command, env=env or bench.environment(), cwd=bench.home, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        try:
            yield process.pid
            process.send_signal(signal.SIGINT)
            expect("exit code of `watch`; see last.log", process.wait(), 0)
        finally:
            process.kill()
            process.wait()

    def live(self, bench, pause_ms, **stdout):
        """The events of all runs, written step by step from now on."""
        options = {"runs": self.runs, "steps": self.steps, "tags": TAGS, "live": pause_ms}
        arguments = [part for key, value in options.items() for part in (f"--{key}", str(value))]
        return subprocess.Popen([bench.generator, *arguments, self.logs], **stdout)

    def clean(self, bench):
        bench.fresh("watched")
        bench.fresh("watch")


class Idle(Watch):
    """Runs that may go on at any moment, and do not."""

    name = "watch-idle"
    target = "0.5 % of a core, 40 MB"

    def prepare(self, bench):
        self.runs, self.steps, self.seconds = bench.size(100, 3), bench.size(10, 2), bench.size(60, 0)
        self.ours_name = f"`watch`, {self.runs} idle runs"
        self.logs = bench.fresh("watched")

    def ours(self, bench):
        expect("exit code of the generator", self.live(bench, 0, stdout=subprocess.DEVNULL).wait(), 0)
        with bench.server() as (url, key):
            env = bench.environment(url, key) | {"WANDB_DIR": str(bench.fresh("watch"))}
            with self.watching(bench, env=env) as pid:
                wait_for(lambda: lines_held(url) == self.runs * self.steps, "all rows to arrive")
                share = processor_share(pid, self.seconds)
                megabytes = family_peak(pid) / 1024
        return Figures(0, megabytes, notes={"% of a core": share})

    def is_met(self, result):
        return result.note("ours", "% of a core") < 0.5 and result.memory("ours") <= 40


class Busy(Watch):
    """Runs that grow all the time."""

    target = "5 % of a core, 40 MB, 95 % of rows within 1.5 s"
    limit = ()

    def __init__(self, name, said, arguments):
        self.name, self.said, self.arguments = name, said, arguments

    def prepare(self, bench):
        self.runs, self.steps = bench.size(10, 2), bench.size(700, 5)
        # Beginning and end are left out of what the processor does, but no row is of how late it is.
        self.wait, self.seconds = bench.size(5, 0), bench.size(60, 0)
        rate = self.runs * TAGS * 1000 // PAUSE_MS
        self.ours_name = f"`watch{self.said}`, {rate:,} points/s into {self.runs} runs"
        self.logs = bench.fresh("watched")

    def ours(self, bench):
        flushes = bench.home / "flushes"
        with bench.server() as (url, key), open(flushes, "w") as output:
            env = bench.environment(url, key) | {"WANDB_DIR": str(bench.fresh("watch"))}
            with self.watching(bench, *self.arguments, env=env) as pid:
                writer = self.live(bench, PAUSE_MS, stdout=output)
                time.sleep(self.wait)
                share = processor_share(pid, self.seconds)
                expect("exit code of the generator", writer.wait(), 0)
                wait_for(lambda: lines_held(url) == self.runs * self.steps, "all rows to arrive")
                megabytes = family_peak(pid) / 1024
            lateness = sorted(late_by(flushes, held(url)))
        expect("rows that are on the server", len(lateness), self.runs * self.steps)
        middle, late = statistics.median(lateness), lateness[math.ceil(0.95 * len(lateness)) - 1]
        notes = {"% of a core": share, "s to the row (median)": round(middle, 2), "s (95 %)": round(late, 2)}
        return Figures(0, megabytes, notes=notes)

    def is_met(self, result):
        note = lambda name: result.note("ours", name)  # noqa: E731
        return note("% of a core") < 5 and note("s (95 %)") < 1.5 and result.memory("ours") <= 40


class ManyIdle(Watch):
    """Very many runs that ended hours ago: how often the file system is asked."""

    name = "watch-20k-idle"
    target = "200 stat calls/s"
    CALLS = "stat,lstat,fstat,newfstatat,statx"

    def prepare(self, bench):
        # Twice as long as a look at everything may take its time.
        self.runs, self.seconds = bench.size(20_000, 30), bench.size(240, 1)
        self.ours_name = f"`watch --mode offline`, {self.runs:,} idle runs"
        self.logs = bench.events(f"{self.runs}-runs", runs=self.runs, steps=1, tags=TAGS)
        written = time.time() - LONG_AGO
        for file in self.logs.glob("*/*"):
            os.utime(file, (written, written))

    def ours(self, bench):
        home = bench.fresh("watch")
        with self.watching(bench, "--mode", "offline", "--dir", home) as pid:
            wait_for(lambda: len(list(home.glob("wandb/offline-run-*"))) == self.runs, "all runs to be recorded")
            wait_for(lambda: is_at_rest(pid), "the first look to end")
            share = processor_share(pid, self.seconds / 2)
            calls = calls_a_second(pid, self.CALLS, self.seconds, home)
            megabytes = family_peak(pid) / 1024
        return Figures(0, megabytes, notes={"% of a core": share} | calls)

    def is_met(self, result):
        notes = result.figures["ours"][0].notes
        return notes["stat calls/s"] <= 200 if "stat calls/s" in notes else None

    def clean(self, bench):
        super().clean(bench)
        bench.drop_events(f"{self.runs}-runs")


def wait_for(condition, what, limit=1200):
    end = time.monotonic() + limit
    while not condition():
        if time.monotonic() > end:
            sys.exit(f"waited {limit} s for {what}")
        time.sleep(0.2)


def processor_seconds(pid):
    # Behind the name, which is in brackets and may hold anything, the 12th and 13th are user and system time.
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def processor_share(pid, seconds):
    """How much of one core a process takes while so much time passes, in percent."""
    before, begin = processor_seconds(pid), time.monotonic()
    time.sleep(seconds)
    taken, passed = processor_seconds(pid) - before, time.monotonic() - begin
    return round(100 * taken / passed, 2) if seconds else 0.0


def is_at_rest(pid):
    """Whether a process does next to nothing."""
    before = processor_seconds(pid)
    time.sleep(1)
    return processor_seconds(pid) - before < 0.1


def calls_a_second(pid, names, seconds, folder):
    """System calls of these names, as `strace` counts them; nothing where it is not there or may not look."""
    if not shutil.which("strace"):
        return {"calls counted, since there is no `strace`": 0}
    counts = folder / "strace"
    command = ["strace", "-f", "-c", "-e", f"trace={names}", "-o", counts, "-p", str(pid)]
    counter = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    begin = time.monotonic()
    time.sleep(seconds)
    counter.send_signal(signal.SIGINT)
    counter.wait()
    passed = time.monotonic() - begin
    if not counts.exists() or "calls" not in counts.read_text():
        return {"calls counted, since `strace` may not look": 0}
    # % time, seconds, usecs/call, calls, errors if any, and the name.
    rows = [line.split() for line in counts.read_text().splitlines()]
    calls = sum(int(row[3]) for row in rows if row and row[-1] in names.split(","))
    return {"stat calls/s": round(calls / passed, 1)}


def late_by(flushes, state):
    """For each row on the server, how long after the flush that wrote it."""
    ids = {run["display_name"]: run["id"] for run in state["runs"].values()}
    came = {}
    for request in state["requests"]:
        if request["status"] != 200 or not request["run"]:
            continue
        at = state["started"] + request["at"]["secs"] + request["at"]["nanos"] / 1e9
        for file, offset, count in request["lines"]:
            if file == "wandb-history.jsonl":
                for line in range(offset, offset + count):
                    came.setdefault((request["run"], line), at)
    for line in flushes.read_text().splitlines():
        run, step, flushed = line.split()
        if at := came.get((ids[run], int(step))):
            yield at - float(flushed)


CASES = [
    Idle(),
    Busy("watch-busy", "", []),
    Busy("watch-busy-limited", " --tpslimit 20", ["--tpslimit", "20"]),
    ManyIdle(),
]
