"""Histograms and images: blobs, which are copied and never decoded."""

import shutil

from . import data_server
from .convert import import_offline
from .harness import Case
from .read import inspect


class Media(Case):
    """150 MB, half of each kind."""

    unit = "MB"

    def prepare(self, bench):
        self.logs = bench.home / "events" / "media"
        # Four runs of histograms of two tags, four of images.
        histograms, images = bench.size(11_000, 5), bench.size(380, 2)
        bench.events("media/histograms", form="histogram", runs=4, steps=histograms, tags=2)
        bench.events("media/images", form="image", runs=4, steps=images, tags=1)
        self.points = 4 * (2 * histograms + images)
        self.amount = sum(path.stat().st_size for path in self.logs.rglob("*tfevents*")) / 1e6


class Read(Media):
    name = "read-media"
    ours_name = "`inspect --json`"
    peer_name = "data server, `--checksum`"
    target, at_least = "3 × its MB/s", 3.0

    def ours(self, bench):
        return inspect(bench, self.logs, self.points)

    def peer(self, bench):
        return data_server.load(bench, self.logs)


class Convert(Media):
    name = "convert-media"
    ours_name = "`import --mode offline`"
    peer_name = "`cp -r`, then `sync -f`"
    target, at_least = "in 1.5 × its time", 1 / 1.5

    def ours(self, bench):
        return import_offline(bench, self.logs, "imported")

    def peer(self, bench):
        shutil.rmtree(bench.home / "copied", ignore_errors=True)
        copy = f"cp -r '{self.logs}' '{bench.home}/copied' && sync -f '{bench.home}/copied'"
        return bench.measure(["sh", "-c", copy])

    def clean(self, bench):
        bench.fresh("imported")
        bench.fresh("copied")


CASES = [Read(), Convert()]
