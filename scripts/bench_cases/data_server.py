"""TensorBoard's data server as a peer: the time that it says its first load took."""

import os
import re
import subprocess
import sys

from .harness import Figures, Memory, settle

VERSION = "tensorboard-data-server==0.7.2"

SECONDS = {"ns": 1e-9, "µs": 1e-6, "ms": 1e-3, "s": 1.0}


def load(bench, logs, samples=None):
    """Lets it load everything once. `samples` are those of its `--samples-per-plugin`."""
    package = bench.installed(VERSION)
    [program] = package.parent.glob("lib/python3*/site-packages/tensorboard_data_server/bin/server")
    log, port = bench.home / "last.log", bench.home / "port"
    command = [program, "--logdir", logs, "--port", "0", "--port-file", port, "--reload", "once", "--checksum", "-v"]
    if samples:
        command += ["--samples-per-plugin", samples]
    settle()
    with open(log, "wb") as output:
        process = subprocess.Popen(
            command, env=bench.environment(), stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.PIPE, text=True
        )
        seconds, failed = None, 0
        try:
            with Memory(process.pid) as memory:
                for line in process.stderr:
                    output.write(line.encode())
                    # One line for each file that it could not open or read.
                    failed += "WARN" in line
                    if finished := re.search(r"Finished load cycle \(([0-9.]+)(ns|µs|ms|s)\)", line):
                        seconds = float(finished[1]) * SECONDS[finished[2]]
                        break
        finally:
            process.kill()
            _, _, usage = os.wait4(process.pid, 0)
            process.returncode = -9
    if seconds is None:
        sys.exit(f"the data server ended before it had loaded `{logs}`; see {log}")
    notes = {"warnings": failed} if failed else {}
    return Figures(seconds, memory.megabytes, usage.ru_utime + usage.ru_stime, notes)
