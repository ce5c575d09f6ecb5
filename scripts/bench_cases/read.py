"""Reading scalars: every checksum verified, every point counted."""

import json

from . import data_server
from .harness import Case, expect


def inspect(bench, logs, events, kind="scalar"):
    """Our reading; what it counted must be what was written."""
    figures = bench.measure([bench.binary, "inspect", "--json", logs])
    runs = [line for line in map(json.loads, bench.said().splitlines()) if line.get("type") == "run"]
    read = sum(tag["points"] for run in runs for tag in run["tags"])
    expect(f"points read in `{logs}`", read, events)
    return figures


class Read(Case):
    """One shape of scalars."""

    ours_name = "`inspect --json`"
    peer_name = "data server, `--checksum`"
    unit = "events"
    target, at_least = "3 × its events/s", 3.0

    def __init__(self, name, form, runs, steps, tags, rounds=5):
        self.name, self.form, self.runs, self.steps, self.tags, self.rounds = name, form, runs, steps, tags, rounds

    def prepare(self, bench):
        steps = bench.size(self.steps, 20)
        self.amount = self.runs * steps * self.tags
        self.logs = bench.events(
            f"{self.runs}x{steps}x{self.tags}-{self.form}", runs=self.runs, steps=steps, tags=self.tags, form=self.form
        )

    def ours(self, bench):
        return inspect(bench, self.logs, self.amount)

    def peer(self, bench):
        return data_server.load(bench, self.logs)


CASES = [
    Read("read-1m-simple", "simple", runs=1, steps=250_000, tags=4),
    Read("read-1m-tensor", "tensor", runs=1, steps=250_000, tags=4),
    Read("read-10m-simple", "simple", runs=8, steps=25_000, tags=50),
    Read("read-10m-tensor", "tensor", runs=8, steps=25_000, tags=50),
]
