"""Records one run offline whose log holds artifacts of every kind that can be logged without a server."""

import argparse
import pathlib

import wandb

parser = argparse.ArgumentParser()
parser.add_argument("--id", default="art1")
parser.add_argument("--project", default="interop")
parser.add_argument("--many", type=int, default=0, help="entries of an artifact that is large enough for a list of its own")
options = parser.parse_args()

if options.many:
    import wandb.sdk.interface.interface as interface

    # Far fewer than the client's own limit, so that the test stays small.
    interface.MANIFEST_FILE_SIZE_THRESHOLD = options.many - 1

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
run.finish()
