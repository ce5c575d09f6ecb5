"""Logs to a server, beside the official client. Both get a copy of the same log and a server of their own that holds
nothing yet; who says it is done is believed only when the server holds every history line."""

import shutil

from .convert import import_offline
from .harness import Case, PROJECT, expect, lines_held

OFFICIAL = "wandb==0.31.0"


class Rows(Case):
    """One run of many rows."""

    name = "upload-rows"
    ours_name = "`sync`"
    peer_name = "`wandb sync` 0.31.0"
    unit = "rows"
    target, at_least = "20 ×", 20.0

    def prepare(self, bench):
        self.amount = bench.size(250_000, 100)
        logs = bench.events(f"1x{self.amount}x4-simple", runs=1, steps=self.amount, tags=4, form="simple")
        import_offline(bench, logs, "to-upload", self.amount)

    def upload(self, bench, command):
        folder = bench.fresh("upload") / "wandb"
        shutil.copytree(bench.home / "to-upload" / "wandb", folder, symlinks=True)
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


CASES = [Rows()]
