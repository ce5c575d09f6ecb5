"""What should hardly be there: start-up, size, and memory that grows with the input."""

from .convert import import_offline
from .harness import Case, Figures
from .read import inspect
from .upload import OFFICIAL


class StartUp(Case):
    name = "start-up"
    ours_name = "`wandb-bridge --version`"
    peer_name = "`wandb --version`"
    target = "10 ms"
    rounds = 11

    def ours(self, bench):
        return bench.measure([bench.binary, "--version"])

    def peer(self, bench):
        return bench.measure([bench.installed(OFFICIAL) / "wandb", "--version"])

    def is_met(self, result):
        return result.seconds("ours") <= 0.010


class BinarySize(Case):
    name = "binary-size"
    ours_name = "the stripped program"
    target = "12 MB"
    rounds = 1

    def ours(self, bench):
        return Figures(0, 0, notes={"MB": round(bench.binary.stat().st_size / 1e6, 1)})

    def is_met(self, result):
        return result.note("ours", "MB") <= 12


class FlatMemory(Case):
    """The same run 1 and 100 times as long; the small one stands where others have the peer."""

    compares_time = False
    target = "at most 1.2 × its memory"
    rounds = 1
    runs, tags = 2, 50

    def prepare(self, bench):
        # 100 MB and 10 GB.
        self.steps = bench.size(17_000, 20)
        longer = bench.size(100, 3)
        shape = {"runs": self.runs, "tags": self.tags}
        self.short = bench.events("memory-short", steps=self.steps, **shape)
        self.long = bench.events("memory-long", steps=self.steps * longer, **shape)
        self.events = self.runs * self.tags * self.steps * longer

    def is_met(self, result):
        return result.memory("ours") <= 1.2 * result.memory("peer")


class FlatRead(FlatMemory):
    name = "memory-read"
    ours_name, peer_name = "`inspect --json` of 10 GB", "the same of 100 MB"

    def ours(self, bench):
        return inspect(bench, self.long, self.events)

    def peer(self, bench):
        return inspect(bench, self.short, self.runs * self.tags * self.steps)


class FlatConvert(FlatMemory):
    name = "memory-convert"
    ours_name, peer_name = "`import --mode offline` of 10 GB", "the same of 100 MB"

    def ours(self, bench):
        return import_offline(bench, self.long, "imported", self.events // self.tags)

    def peer(self, bench):
        return import_offline(bench, self.short, "imported", self.runs * self.steps)

    def clean(self, bench):
        bench.fresh("imported")
        bench.drop_events("memory-long")


CASES = [StartUp(), BinarySize(), FlatRead(), FlatConvert()]
