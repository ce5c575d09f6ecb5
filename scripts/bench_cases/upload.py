"""Logs and event files to a server, beside the official client. Both sides get a copy of the same files and a server of
their own that holds nothing yet; who says it is done is believed only when the server holds every history line.

Nobody limits the requests a second here: neither side does by default, and the server does not ask for it."""

import pathlib
import shutil
import subprocess

from .convert import import_offline
from .harness import Case, PROJECT, expect, lines_held

OFFICIAL = "wandb==0.31.0"
# The last whose `wandb sync` takes event files, and what it needs for that.
LAST_WITH_TENSORBOARD = ("wandb==0.29.0", "tensorboard")
HERE = pathlib.Path(__file__).parent


class Upload(Case):
    """A copy of some logs to a new server."""

    ours_name = "`sync`"
    peer_name = "`wandb sync` 0.31.0"
    unit = "rows"

    def upload(self, bench, command):
        folder = bench.fresh("upload") / "wandb"
        shutil.copytree(self.logs(bench), folder, symlinks=True)
        with bench.server() as (url, key):
            figures = bench.measure([*command, folder], bench.environment(url, key))
            expect(f"history lines of `{command[0]}`", lines_held(url), self.amount)
        return figures

    def ours(self, bench):
        return self.upload(bench, [bench.binary, "sync", "-p", PROJECT, "-q"])

    def peer(self, bench):
        return self.upload(bench, [bench.installed(OFFICIAL) / "wandb", "sync", "-p", PROJECT])

    def clean(self, bench):
        bench.fresh("to-upload")
        bench.fresh("upload")


class Rows(Upload):
    """One run of many rows."""

    name = "upload-rows"
    target, at_least = "20 ×", 20.0
    rows = 250_000

    def prepare(self, bench):
        self.amount = bench.size(self.rows, 100)
        logs = bench.events(f"1x{self.amount}x4-simple", runs=1, steps=self.amount, tags=4, form="simple")
        import_offline(bench, logs, "to-upload", self.amount)

    def logs(self, bench):
        return bench.home / "to-upload" / "wandb"


class MillionRows(Rows):
    """The whole million, once: the peer needs minutes."""

    name = "upload-1m-rows"
    rows = 1_000_000
    rounds = 1


class Runs(Upload):
    """Very many small runs that the official client recorded."""

    name = "upload-1k-runs"
    ours_name = "`sync DIR`"
    peer_name = "`wandb sync -n 5 DIR` 0.31.0"
    target, at_least = "10 ×", 10.0

    def prepare(self, bench):
        copies, rows = bench.size(1000, 5), 100
        self.amount = copies * rows
        python = bench.installed(OFFICIAL) / "python"
        folder = bench.fresh("to-upload")
        subprocess.run([python, HERE / "official_run.py", folder, str(copies), str(rows)], check=True)

    def logs(self, bench):
        return bench.home / "to-upload" / "wandb"

    def peer(self, bench):
        return self.upload(bench, [bench.installed(OFFICIAL) / "wandb", "sync", "-n", "5", "-p", PROJECT])


class TensorBoard(Case):
    """Event files to a server."""

    name = "upload-tensorboard"
    ours_name = "`import`"
    peer_name = "`wandb sync` 0.29.0"
    unit = "scalars"
    target, at_least = "50 ×", 50.0
    tags = 4
    # The peer needs minutes.
    rounds = 1

    def prepare(self, bench):
        self.amount = bench.size(200_000, 400)
        steps = self.amount // self.tags
        self.logs = bench.events(f"1x{steps}x{self.tags}-simple", runs=1, steps=steps, tags=self.tags, form="simple")

    def measure(self, bench, command):
        with bench.server() as (url, key):
            environment = bench.environment(url, key) | {"WANDB_DIR": str(bench.fresh("upload"))}
            figures = bench.measure([*command, self.logs], environment)
            expect(f"history lines of `{command[0]}`", lines_held(url), self.amount // self.tags)
        return figures

    def ours(self, bench):
        return self.measure(bench, [bench.binary, "import", "-p", PROJECT, "-q"])

    def peer(self, bench):
        return self.measure(bench, [bench.installed(*LAST_WITH_TENSORBOARD) / "wandb", "sync", "--legacy", "-p", PROJECT])

    def clean(self, bench):
        bench.fresh("upload")


class Script(TensorBoard):
    """The same, beside what people write themselves."""

    name = "upload-script"
    rounds = 5
    peer_name = "`EventAccumulator` and `run.log`, 0.31.0"

    def peer(self, bench):
        python = bench.installed(OFFICIAL, "tensorboard") / "python"
        return self.measure(bench, [python, HERE / "event_accumulator.py"])


CASES = [Rows(), MillionRows(), Runs(), TensorBoard(), Script()]
