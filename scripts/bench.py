"""The measuring half of `scripts/bench`, which builds and installs what this needs.

Each round imports afresh and uploads two copies of the same log, one with each client, each to a server of its own that
holds nothing yet; who goes first changes with the round. A client that says it is done is believed only when the
server holds every history line. The time of a client is that of its whole process, start and end included. Memory is
the largest sum of the resident memory of a client's processes (the official one has two).
"""

import argparse
import contextlib
import json
import os
import pathlib
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


def environment(url="http://127.0.0.1:9"):
    """What both clients see: no settings of the person who runs this."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "TZ") if name in os.environ}
    person = HOME / "home"
    person.mkdir(parents=True, exist_ok=True)
    return kept | {
        "HOME": str(person),
        "WANDB_BASE_URL": url,
        "WANDB_API_KEY": "0" * 40,
        "WANDB_ERROR_REPORTING": "false",
        "NO_PROXY": "127.0.0.1",
    }


def resident(pid):
    """Kilobytes of one process, and its parent; (0, 0) when it is gone."""
    try:
        status = pathlib.Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0, 0
    fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    return int(fields.get("VmRSS", "0 kB").split()[0]), int(fields["PPid"])


def resident_with_children(root):
    """Kilobytes of a process and all below it."""
    processes = {int(name): resident(name) for name in os.listdir("/proc") if name.isdigit()}
    total, family = 0, [root]
    while family:
        pid = family.pop()
        total += processes.get(pid, (0, 0))[0]
        family += [child for child, (_, parent) in processes.items() if parent == pid]
    return total


def measure(command, env, log):
    """Runs `command` to its end: seconds, megabytes."""
    with open(log, "wb") as output:
        begin = time.perf_counter()
        process = subprocess.Popen(command, env=env, cwd=HOME, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        peak = 0
        done = threading.Event()

        def sample():
            nonlocal peak
            while not done.wait(0.05):
                peak = max(peak, resident_with_children(process.pid))

        sampler = threading.Thread(target=sample)
        sampler.start()
        # `wait4` also tells the peak of the process itself, which a sampler may miss.
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - begin
        process.returncode = os.waitstatus_to_exitcode(status)
        done.set()
        sampler.join()
    if process.returncode != 0:
        tail = pathlib.Path(log).read_text(errors="replace")[-2000:]
        sys.exit(f"`{' '.join(map(str, command))}` ended with {process.returncode}:\n{tail}")
    return seconds, max(peak, usage.ru_maxrss) / 1024


@contextlib.contextmanager
def server():
    """A fake W&B server that holds nothing yet; gives its URL."""
    process = subprocess.Popen([FAKE_SERVER], stdout=subprocess.PIPE, text=True)
    try:
        yield process.stdout.readline().strip()
    finally:
        process.terminate()
        process.wait()


def lines_held(url):
    """How many history lines the server holds, over all runs."""
    with urllib.request.urlopen(f"{url}/_fake/state") as answer:
        return sum(len(run["history"]) for run in json.load(answer)["runs"])


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
    """Uploads a copy of what was imported; `command` is completed with the run directories."""
    folder = fresh(f"upload-{name}")
    shutil.copytree(HOME / "imported" / "wandb", folder / "wandb", symlinks=True)
    runs = sorted((folder / "wandb").glob("offline-run-*"))
    with server() as url:
        figures = measure([*command, *runs], environment(url), HOME / f"upload-{name}.log")
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
