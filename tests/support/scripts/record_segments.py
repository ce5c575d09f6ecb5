"""Records one run in several logs, offline, below one directory.

Usage: python record_segments.py DIR allow|none|branches

`allow` and `none` (the argument `resume`) make three logs of the run `again`, the second with a step that jumps. `branches`
makes the run `base`, the run `child` that is forked from it, and a log that winds `base` back.
"""

import sys
import time

import wandb

DIRECTORY, WHAT = sys.argv[1:]


def record(id, rows, exit_code=0, then=None, **init):
    settings = wandb.Settings(console="wrap_raw")
    run = wandb.init(mode="offline", project="segments", id=id, name=id, dir=DIRECTORY, settings=settings, **init)
    for row in rows:
        run.log(row, step=row.pop("at", None))
    print(f"{len(rows)} rows")
    if then:
        then(run)
    run.finish(exit_code=exit_code)
    # The names of run directories have whole seconds.
    time.sleep(1.1)


def say_mine(run):
    run.summary["mine"] = 1


if WHAT == "branches":
    record("base", [{"x": i} for i in range(6)], config={"first": 1, "both": 1})
    record("child", [{"x": 10 + i} for i in range(3)], fork_from="base?_step=2")
    record("base", [{"x": 20 + i} for i in range(2)], resume_from="base?_step=3", config={"second": 1, "both": 2})
else:
    init = {"resume": WHAT if WHAT != "none" else None}
    record("again", [{"x": i} for i in range(3)], exit_code=1, config={"first": 1, "both": {"a": 1}}, **init)
    record("again", [{"x": 3}, {"x": 4}, {"x": 5, "at": 20}], exit_code=1, then=say_mine, config={"both": {"b": 2}}, **init)
    record("again", [{"x": 6}, {"x": 7, "at": 2}, {"x": 8, "at": 25}], config={"third": 3}, **init)
