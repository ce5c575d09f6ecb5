"""Importing scalars offline: run directories written, and durable."""

import json

from . import data_server
from .harness import Case, expect
from .read import Read


def import_offline(bench, logs, folder, rows=None):
    """Our import into a fresh folder; what it recorded must be what was written."""
    home = bench.fresh(folder)
    command = [bench.binary, "import", logs, "--mode", "offline", "--dir", home, "-p", "bench", "--json", "-q"]
    figures = bench.measure(command)
    summary = json.loads(bench.said().splitlines()[-1])
    if rows is not None:
        expect(f"rows recorded of `{logs}`", summary["rows"], rows)
    return figures


class Convert(Read):
    """The same inputs as those that are read."""

    ours_name = "`import --mode offline`"
    peer_name = "data server keeping all points"
    target, at_least = "2 × its events/s, a tenth of its memory", 2.0

    def ours(self, bench):
        return import_offline(bench, self.logs, "imported", self.amount // self.tags)

    def peer(self, bench):
        return data_server.load(bench, self.logs, samples="scalars=all")

    def is_met(self, result):
        return result.ratio >= 2 and result.memory("ours") * 10 <= result.memory("peer")

    def clean(self, bench):
        bench.fresh("imported")


CASES: list[Case] = [
    Convert("convert-1m-simple", "simple", runs=1, steps=250_000, tags=4),
    Convert("convert-1m-tensor", "tensor", runs=1, steps=250_000, tags=4),
    Convert("convert-10m-simple", "simple", runs=8, steps=25_000, tags=50),
]
