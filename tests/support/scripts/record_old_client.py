"""Records one run offline, below the working directory, with a client of any version since 0.16.

Usage: python record_old_client.py

The id of the run is made of the client's version: `v0_16_6`. What the fixtures hold was recorded with `WANDB_HOST=trainer-0`,
`WANDB_USERNAME=trainer` and `WANDB_DISABLE_GIT=true`; `tests/fixtures/README.md` tells the versions.
"""

import pathlib
import sys

import numpy as np
import wandb

NAME = "v" + wandb.__version__.replace(".", "_")
run = wandb.init(
    mode="offline",
    project="old",
    id=NAME,
    name="before",
    tags=["a"],
    notes="several\nlines",
    group="g",
    job_type="train",
    config={"lr": 1e-05, "nested": {"a": {"b": [1, {"c": None}]}}, "nan": float("nan")},
    settings=wandb.Settings(console="wrap"),
)
run.define_metric("epoch", hidden=True)
run.define_metric("validation/*", step_metric="epoch", summary="min")
run.define_metric("loss", summary="max")

for i in range(6):
    row = {"loss": 0.5**i, "epoch": i // 2, "deep": {"er": i, "est": {"x": -i}}, "a.b": i, "word": f"row {i}"}
    if i % 2:
        row = {"validation/accuracy": i / 8, "null": None, "huge": float("inf"), "large": 2**53 + 1}
    run.log(row)
    sys.stderr.write(f"\r{i}/6 " + "#" * i)
    sys.stderr.flush()
sys.stderr.write("\n")
print("on stdout\nhalf done\rdone")
run.log({
    "page": wandb.Html("<b>page</b>"),
    "picture": wandb.Image(np.zeros((4, 5, 3), dtype=np.uint8), caption="black"),
    "spread": wandb.Histogram([1, 2, 3, 3]),
}, step=20)

directory = pathlib.Path(run.dir)
for policy in ["now", "live", "end"]:
    (directory / f"{policy}.txt").write_text(f"{policy}\n")
    run.save(str(directory / f"{policy}.txt"), base_path=run.dir, policy=policy)
run.name = "after ü"
run.tags = run.tags + ("b c",)
run.config.update({"late": {"x": 1}}, allow_val_change=True)
run.summary["best"] = {"loss": 0.125}
run.summary["gone"] = 1
del run.summary["gone"]
run.alert("Title", "Text", level="WARN")
run.mark_preempting()
run.log({"loss": 0.25})
run.finish(exit_code=3)
