"""Records one run with the official client, with something of everything in it."""

import argparse
import pathlib
import sys

import numpy as np
import wandb

parser = argparse.ArgumentParser()
parser.add_argument("--id", required=True)
parser.add_argument("--mode", choices=["online", "offline"], required=True)
parser.add_argument("--project", default="interop")
parser.add_argument("--rows", type=int, default=8)
parser.add_argument("--resume", default=None)
parser.add_argument("--exit-code", type=int, default=0)
parser.add_argument("--table", action="store_true", help="log a table, which makes an artifact too")
parser.add_argument("--artifact", action="store_true", help="log an artifact")
options = parser.parse_args()

config = {
    "lr": 0.1,
    "layers": [64, 32],
    "optimizer": {"name": "adam", "betas": [0.9, 0.999], "decay": {"after": 3}},
    "nothing": None,
    "flag": True,
    "text": 'quotes " and \\ and ü and 🦀',
}
run = wandb.init(
    id=options.id,
    mode=options.mode,
    project=options.project,
    name="First try",
    group="some group",
    job_type="train",
    tags=["one", "two words"],
    notes="several\nlines of notes",
    config=config,
    resume=options.resume,
)
run.define_metric("epoch", hidden=True)
run.define_metric("validation/*", step_metric="epoch", summary="min")
run.define_metric("loss", summary="min,max,mean,last")

for i in range(options.rows):
    row = {
        "loss": 1 / (i + 1),
        "epoch": i // 2,
        "nested": {"x": i, "deeper": {"y": i * 2.5}},
        "dotted.key": i,
        "flag": i % 2 == 0,
        "word": f"row {i}",
        "large": 10**12 + i,
        "tiny": 1e-12 * i,
    }
    if i % 2:
        row["validation/accuracy"] = 0.5 + i / 10
    if i == 3:
        row.update({"strange": float("nan"), "huge": float("inf"), "negative": float("-inf"), "null": None})
    run.log(row)
    print(f"line {i}")
print("something went wrong", file=sys.stderr)
print("half done\rdone")

media = {
    "page": wandb.Html("<b>page</b>"),
    "picture": wandb.Image(np.zeros((4, 5, 3), dtype=np.uint8), caption="black"),
    "spread": wandb.Histogram([1, 2, 3, 3]),
}
if options.table:
    media["table"] = wandb.Table(columns=["a", "b"], data=[[1, "x"], [2, "y"]])
# The step jumps.
run.log(media, step=run.step + 10)

run.summary["best"] = {"loss": 0.125}
run.config.update({"late": [1, 2], "optimizer": {"name": "sgd"}}, allow_val_change=True)
note = pathlib.Path(run.dir) / "notes" / "a note.txt"
note.parent.mkdir()
note.write_text("hello\n")
run.save(str(note), base_path=run.dir)
run.alert("Title", "Text", level="WARN")
if options.artifact:
    artifact = wandb.Artifact("data", type="dataset", metadata={"k": 1})
    with artifact.new_file("saved.txt") as file:
        file.write("x")
    run.log_artifact(artifact, aliases=["best"])
run.finish(exit_code=options.exit_code)
