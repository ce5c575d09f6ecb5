"""The measuring half of `scripts/bench`, which builds and installs what this needs.

Each round imports afresh and uploads two copies of the same log, one with each client, each to a server of its own that
holds nothing yet; who goes first changes with the round. A client that says it is done is believed only when the
server holds every history line. The time of a client is that of its whole process, start and end included. Memory is
the peak of a client's processes (the official one has two), looked at every 20 ms.
"""

import argparse
import contextlib
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

HOME = pathlib.Path("target/bench").resolve()
BINARY = pathlib.Path("target/release/wandb-bridge").resolve()
FAKE_SERVER = pathlib.Path("target/release/examples/fake_server").resolve()
GENERATOR = pathlib.Path("target/release/examples/generate_events").resolve()
OFFICIAL = HOME / "venv" / "bin" / "wandb"
PROJECT = "bench"


def environment(url="http://127.0.0.1:9", key="0" * 40):
    """What both clients see: no settings of the person who runs this, and no proxy."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "TZ") if name in os.environ}
    person = HOME / "home"
    person.mkdir(parents=True, exist_ok=True)
    return kept | {
        "HOME": str(person),
        "WANDB_BASE_URL": url,
        "WANDB_API_KEY": key,
        "WANDB_ERROR_REPORTING": "false",
        "NO_PROXY": "127.0.0.1",
    }


def family_peak(pid):
    """Kilobytes at most in memory so far, of a process and all below it that still live, their peaks added up."""
    try:
        status = pathlib.Path(f"/proc/{pid}/status").read_text()
        tasks = pathlib.Path(f"/proc/{pid}/task").iterdir()
        children = [child for task in tasks for child in (task / "children").read_text().split()]
    except OSError:  # It has just ended.
        return 0
    peak = re.search(r"^VmHWM:\s*(\d+)", status, re.MULTILINE)
    return int(peak[1] if peak else 0) + sum(map(family_peak, children))


def measure(command, env, log):
    """Runs `command` to its end: seconds, megabytes."""
    with open(log, "wb") as output:
        begin = time.perf_counter()
        process = subprocess.Popen(command, env=env, cwd=HOME, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        peak = 0
        ended = threading.Event()

        def watch_memory():
            nonlocal peak
            while True:
                peak = max(peak, family_peak(process.pid))
                if ended.wait(0.02):
                    return

        watcher = threading.Thread(target=watch_memory)
        watcher.start()
        process.wait()
        seconds = time.perf_counter() - begin
        ended.set()
        watcher.join()
    if process.returncode != 0:
        tail = pathlib.Path(log).read_text(errors="replace")[-2000:]
        sys.exit(f"`{' '.join(map(str, command))}` ended with {process.returncode}:\n{tail}")
    return seconds, peak / 1024


@contextlib.contextmanager
def server():
    """A fake W&B server that holds nothing yet, and takes lines without looking into them; gives its URL and key."""
    process = subprocess.Popen([FAKE_SERVER, "--no-checks"], stdout=subprocess.PIPE, text=True)
    try:
        yield process.stdout.readline().strip(), process.stdout.readline().strip()
    finally:
        process.terminate()
        process.wait()


def lines_held(url):
    """How many history lines the server holds, over all runs."""
    with urllib.request.urlopen(f"{url}/__state") as answer:
        return sum(len(run["history"]) for run in json.load(answer)["runs"].values())


def fresh(name):
    folder = HOME / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def import_offline(logs):
    folder = fresh("imported")
    command = [BINARY, "import", logs, "--mode", "offline", "--dir", folder, "-p", PROJECT, "-q"]
    return measure(command, environment(), HOME / "import.log")


def upload(name, command, rows):
    """Uploads a copy of what was imported; `command` is completed with its folder."""
    folder = fresh(f"upload-{name}") / "wandb"
    shutil.copytree(HOME / "imported" / "wandb", folder, symlinks=True)
    with server() as (url, key):
        figures = measure([*command, folder], environment(url, key), HOME / f"upload-{name}.log")
        held = lines_held(url)
    if held != rows:
        sys.exit(f"{name}: the server holds {held} history lines of {rows}; see {HOME}/upload-{name}.log")
    return figures


def main():
    parser = argparse.ArgumentParser(prog="scripts/bench")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--steps", type=int, default=250_000)
    parser.add_argument("--tags", type=int, default=4)
    parser.add_argument("--form", choices=["simple", "tensor"], default="simple")
    options = parser.parse_args()
    scalars = options.runs * options.steps * options.tags
    rows = options.runs * options.steps

    logs = fresh("logs")
    shape = ["--runs", str(options.runs), "--steps", str(options.steps), "--tags", str(options.tags)]
    subprocess.run([GENERATOR, *shape, "--form", options.form, logs], check=True)
    size = sum(path.stat().st_size for path in logs.rglob("*tfevents*"))
    print(f"{scalars:,} scalars in {options.runs} run(s), {size / 1e6:.1f} MB, {os.cpu_count()} cores", flush=True)

    cases = {name: [] for name in ["inspect", "import offline", "sync", "official sync"]}
    uploads = {
        "sync": ("ours", [BINARY, "sync", "-p", PROJECT, "-q"]),
        "official sync": ("official", [OFFICIAL, "sync", "-p", PROJECT]),
    }
    for number in range(options.rounds):
        print(f"round {number + 1} of {options.rounds}", file=sys.stderr)
        cases["inspect"].append(measure([BINARY, "inspect", "--json", logs], environment(), HOME / "inspect.log"))
        cases["import offline"].append(import_offline(logs))
        for case in list(uploads)[:: 1 if number % 2 == 0 else -1]:
            cases[case].append(upload(*uploads[case], rows))

    print(f"\n{'':16}{'seconds':>10}{'scalars/s':>14}{'peak MB':>10}    seconds of each round")
    medians = {}
    for case, figures in cases.items():
        seconds = medians[case] = statistics.median(second for second, _ in figures)
        memory = statistics.median(megabytes for _, megabytes in figures)
        each = "  ".join(f"{second:.2f}" for second, _ in figures)
        print(f"{case:16}{seconds:>10.2f}{scalars / seconds:>14,.0f}{memory:>10.0f}    {each}")
    print(f"\nsync is {medians['official sync'] / medians['sync']:.1f} times as fast as the official client's")


if __name__ == "__main__":
    main()
