"""How things are run and measured, for all cases.

The time of a command is that of its whole process, start and end included. Memory is the peak of the process and all
below it, added up, as the kernel keeps it; it is looked at every 10 ms, so that what a process takes in its very last
moment may be missed.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import re
import shutil
import statistics
import subprocess
import sys
import threading
import time
import urllib.request

PROJECT = "bench"


@dataclasses.dataclass
class Figures:
    """What one run took."""

    seconds: float
    megabytes: float
    # User and system time, of all processes.
    cpu_seconds: float = 0.0
    # What else is worth a line below the table, by name.
    notes: dict = dataclasses.field(default_factory=dict)


class Case:
    """The defaults of a case."""

    name = ""
    ours_name = ""
    peer_name = None
    # How much one run works off; the rate in the table comes from it.
    amount = 0
    unit = ""
    target = ""
    rounds = 5
    # Whether the times of both sides say anything beside each other.
    compares_time = True
    # How many times as fast as the peer, at least.
    at_least = None

    def prepare(self, bench):
        """Makes the input."""

    def ours(self, bench):
        raise NotImplementedError

    def peer(self, bench):
        raise NotImplementedError

    def is_met(self, result):
        """Whether the target is met; `None` where that is not for a program to say."""
        return None if self.at_least is None else result.ratio >= self.at_least

    def clean(self, bench):
        """Takes away what the disk should not keep."""


class Bench:
    """Where things are, and how large the inputs are."""

    def __init__(self, small):
        self.small = small
        self.home = pathlib.Path("target/bench").resolve() / ("small" if small else "full")
        self.home.mkdir(parents=True, exist_ok=True)
        binaries = pathlib.Path(os.environ["BENCH_BINARIES"]).resolve()
        self.binary = binaries / "wandb-bridge"
        self.generator = binaries / "examples" / "generate_events"
        self.fake_server = binaries / "examples" / "fake_server"

    def size(self, full, small):
        """The first, or the second when all is to be small."""
        return small if self.small else full

    def fresh(self, name):
        """A folder that is new and empty."""
        folder = self.home / name
        if folder.exists():
            self.put_aside(folder)
        folder.mkdir(parents=True)
        return folder

    def put_aside(self, folder):
        """Takes a folder away: what is large at once, and its many small files when all has been measured. For a minute
        after it, ext4 looks at each number of a deleted file whenever one is made: who deletes thousands of files before
        a round measures that, several times as long as all the rest."""
        aside = self.home / "aside"
        aside.mkdir(exist_ok=True)
        folder = folder.rename(aside / str(len(list(aside.iterdir()))))
        for file in folder.rglob("*"):
            if not file.is_symlink() and file.is_file() and file.stat().st_size > 1 << 20:
                file.unlink()

    def close(self):
        """Deletes what was put aside."""
        shutil.rmtree(self.home / "aside", ignore_errors=True)

    def events(self, name, **options):
        """A folder of generated event files, made once: the same options give the same bytes."""
        folder = self.home / "events" / name
        wanted = json.dumps({key: str(value) for key, value in options.items()}, sort_keys=True)
        mark = folder.with_suffix(".made")
        if not (mark.exists() and mark.read_text() == wanted and folder.exists()):
            mark.unlink(missing_ok=True)
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            arguments = [part for key, value in options.items() for part in (f"--{key}", str(value))]
            subprocess.run([self.generator, *arguments, folder], check=True)
            mark.write_text(wanted)
        return folder

    def drop_events(self, name):
        shutil.rmtree(self.home / "events" / name, ignore_errors=True)

    def installed(self, *packages):
        """A virtual environment with these in it, made once; its `bin`."""
        name = re.sub(r"[^A-Za-z0-9.]+", "-", "_".join(packages))
        place = self.home.parent / f"venv-{name}"
        if not (place / "complete").exists():
            print(f"installing {', '.join(packages)}", file=sys.stderr)
            shutil.rmtree(place, ignore_errors=True)
            subprocess.run([sys.executable, "-m", "venv", place], check=True)
            pip = [place / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
            subprocess.run([*pip, *packages], check=True)
            (place / "complete").touch()
        return place / "bin"

    def environment(self, url="http://127.0.0.1:9", key="0" * 40):
        """What both sides see: no settings of the person who runs this, and no proxy."""
        kept = {name: os.environ[name] for name in ("PATH", "LANG", "TZ") if name in os.environ}
        person = self.home / "person"
        person.mkdir(parents=True, exist_ok=True)
        return kept | {
            "HOME": str(person),
            "WANDB_BASE_URL": url,
            "WANDB_API_KEY": key,
            "WANDB_ERROR_REPORTING": "false",
            "NO_PROXY": "127.0.0.1",
        }

    def measure(self, command, env=None, codes=(0,)):
        """Runs a command to its end. What it says is in `last.log`."""
        settle()
        log = self.home / "last.log"
        with open(log, "wb") as output:
            begin = time.perf_counter()
            process = subprocess.Popen(
                command, env=env or self.environment(), cwd=self.home, stdin=subprocess.DEVNULL,
                stdout=output, stderr=output,
            )  # fmt: skip
            with Memory(process.pid) as memory:
                _, status, usage = os.wait4(process.pid, 0)
            seconds = time.perf_counter() - begin
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode not in codes:
            tail = log.read_text(errors="replace")[-2000:]
            sys.exit(f"`{' '.join(map(str, command))}` ended with {process.returncode}:\n{tail}")
        return Figures(seconds, memory.megabytes, usage.ru_utime + usage.ru_stime)

    def said(self):
        """What the last command said."""
        return (self.home / "last.log").read_text(errors="replace")

    @contextlib.contextmanager
    def server(self, *arguments):
        """A fake W&B server that holds nothing yet, and takes lines without looking into them; gives its URL and key."""
        command = [self.fake_server, "--no-checks", *arguments]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            yield process.stdout.readline().strip(), process.stdout.readline().strip()
        finally:
            process.terminate()
            process.wait()


def held(url):
    """All that a server holds."""
    with urllib.request.urlopen(f"{url}/__state") as answer:
        return json.load(answer)


def lines_held(url):
    """How many history lines a server holds, over all runs."""
    return sum(len(run["history"]) for run in held(url)["runs"].values())


def expect(what, got, wanted):
    """Ends everything where a side did not do all of its work: its time would say nothing."""
    if got != wanted:
        sys.exit(f"{what}: {got} instead of {wanted}")


def settle():
    """Lets the disk finish what others wrote, which is nobody's time."""
    os.sync()


class Memory:
    """The peak of a process and all below it, while this is entered."""

    def __init__(self, pid):
        self.pid, self.kilobytes, self.ended = pid, 0, threading.Event()

    @property
    def megabytes(self):
        return self.kilobytes / 1024

    def __enter__(self):
        self.thread = threading.Thread(target=self.watch)
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.ended.set()
        self.thread.join()
        self.look()

    def watch(self):
        while not self.ended.is_set():
            self.look()
            self.ended.wait(0.01)

    def look(self):
        self.kilobytes = max(self.kilobytes, family_peak(self.pid))


def family_peak(pid):
    """Kilobytes at most in memory so far, of a process and all below it that still live, their peaks added up."""
    try:
        status = pathlib.Path(f"/proc/{pid}/status").read_text()
        children = [
            child
            for task in pathlib.Path(f"/proc/{pid}/task").iterdir()
            for child in (task / "children").read_text().split()
        ]
    except OSError:  # It has just ended.
        return 0
    peak = re.search(r"^VmHWM:\s*(\d+)", status, re.MULTILINE)
    return int(peak[1] if peak else 0) + sum(map(family_peak, children))


def file_system(folder):
    return subprocess.run(["stat", "-f", "-c", "%T", folder], check=True, capture_output=True, text=True).stdout.strip()


def refuse_memory_disk(folder):
    kind = file_system(folder)
    if kind in ("tmpfs", "ramfs"):
        sys.exit(f"`{folder}` is on {kind}, where nothing lasts and fsync is free: figures from there say nothing")


def fsync_milliseconds(folder, times=200):
    """The median and the 95th percentile of an fsync of 4 KiB that were appended to a file."""
    taken = []
    with open(folder / "fsync", "wb", buffering=0) as file:
        for _ in range(times):
            file.write(b"x" * 4096)
            begin = time.perf_counter()
            os.fsync(file.fileno())
            taken.append(1000 * (time.perf_counter() - begin))
    (folder / "fsync").unlink()
    return statistics.median(taken), statistics.quantiles(taken, n=20)[-1]
