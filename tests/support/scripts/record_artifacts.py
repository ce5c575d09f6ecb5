"""Records one run offline whose log holds artifacts of every kind that can be logged without a server."""

import argparse
import datetime
import pathlib

import numpy as np
import wandb

parser = argparse.ArgumentParser()
parser.add_argument("--id", default="art1")
parser.add_argument("--project", default="interop")
parser.add_argument("--many", type=int, default=0, help="entries of an artifact that is large enough for a list of its own")
parser.add_argument("--more", action="store_true", help="references, parts of several processes, code, tables that grow")
options = parser.parse_args()

if options.many:
    import wandb.sdk.interface.interface as interface

    # Far fewer than the client's own limit, so that the test stays small.
    interface.MANIFEST_FILE_SIZE_THRESHOLD = options.many - 1


def log_more(run, data):
    kept = wandb.Artifact("kept", type="dataset")
    kept.ttl = datetime.timedelta(days=3)
    # By their digests, and by nothing but their names.
    kept.add_reference(f"file://{(data / 'a.txt').resolve()}", name="here/a.txt")
    kept.add_reference("shelf://library/some/key.bin", name="key.bin")
    run.log_artifact(kept)

    # Several processes put their parts into it, and the last one ends it.
    for part in ["one", "two"]:
        shared = wandb.Artifact("shared", type="dataset")
        with shared.new_file(f"{part}.txt") as file:
            file.write(part)
        method = run.upsert_artifact if part == "one" else run.finish_artifact
        method(shared, distributed_id="all of them")

    run.log_model(str(data / "a.txt"), name="weights", aliases=["best"])
    (data / "code.py").write_text("print()\n")
    run.log_code(str(data))

    # A table that grows from row to row, and one that is changed.
    growing = wandb.Table(columns=["step", "word"], log_mode="INCREMENTAL")
    changing = wandb.Table(columns=["step"], log_mode="MUTABLE")
    for step in range(3):
        growing.add_data(step, f"ü {step}")
        changing.add_data(step)
        run.log({"growing": growing, "changing": changing})
    picture = wandb.Image(np.zeros((4, 5, 3), dtype=np.uint8))
    run.log({
        "pictures": wandb.Table(columns=["picture", "page"], data=[[picture, wandb.Html("<b>page</b>")]]),
        "curve": wandb.plot.line(wandb.Table(columns=["x", "y"], data=[[0, 1], [1, 2]]), "x", "y", title="a chart"),
    })
    run.summary["final"] = wandb.Table(columns=["c"], data=[[4]])


run = wandb.init(id=options.id, mode="offline", project=options.project)

data = pathlib.Path("data")
(data / "deep").mkdir(parents=True)
(data / "a.txt").write_text("first")
(data / "twin.txt").write_text("first")
(data / "empty").write_text("")
(data / "deep" / "ü b.bin").write_bytes(bytes(range(256)) * 40)

first = wandb.Artifact("data", type="dataset", description="what it is", metadata={"k": 1, "list": [1, "x"]})
first.ttl = None
first.add_dir(str(data))
run.log_artifact(first, aliases=["best", "first"], tags=["two words"])
run.log({"loss": 1.0})

same = wandb.Artifact("data", type="dataset")
same.add_dir(str(data))
run.log_artifact(same, aliases=["again"])

second = wandb.Artifact("data", type="dataset")
second.add_dir(str(data))
with second.new_file("new.txt") as file:
    file.write("new")
second.add_reference("https://example.com/some/data.bin", name="ref.bin", checksum=False)
run.log_artifact(second)

table = wandb.Table(columns=["a", "b"], data=[[1, "x"], [2, "y"]])
tables = wandb.Artifact("tables", type="result")
tables.add(table, "table")
run.log_artifact(tables)
linked = wandb.Artifact("linked", type="result")
linked.add(table, "the same table")
run.log_artifact(linked)

immutable = wandb.Artifact("immutable", type="model")
immutable.add_file(str(data / "a.txt"), policy="immutable")
run.log_artifact(immutable)

if options.many:
    many = wandb.Artifact("many", type="dataset")
    for number in range(options.many):
        with many.new_file(f"{number}.txt") as file:
            file.write(f"{number}")
    run.log_artifact(many)

run.log({"loss": 0.5, "table": wandb.Table(columns=["c"], data=[[3]])})
if options.more:
    log_more(run, data)
run.finish()
