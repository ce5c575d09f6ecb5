"""Very many small runs: opening, locking and committing, not bytes."""

from . import data_server
from .convert import import_offline
from .harness import Case
from .read import inspect


class Runs(Case):
    """20,000 runs of 11 events: the file version and ten scalars."""

    unit = "runs"
    tags = 10
    peer_name = "data server, `--checksum`"

    def prepare(self, bench):
        self.amount = bench.size(20_000, 30)
        self.logs = bench.events(f"{self.amount}-runs", runs=self.amount, steps=1, tags=self.tags)

    def peer(self, bench):
        return data_server.load(bench, self.logs)


class Read(Runs):
    name = "read-20k-runs"
    ours_name = "`inspect --json`"
    target, at_least = "as fast, all counted", 1.0

    def ours(self, bench):
        return inspect(bench, self.logs, self.amount * self.tags)


class Convert(Runs):
    name = "convert-20k-runs"
    ours_name = "`import --mode offline`"
    target = "60 s"
    rounds = 5

    def ours(self, bench):
        return import_offline(bench, self.logs, "imported", self.amount)

    def is_met(self, result):
        return result.seconds("ours") <= 60

    def clean(self, bench):
        bench.fresh("imported")
        bench.drop_events(f"{self.amount}-runs")


CASES = [Read(), Convert()]
