"""What people write to bring scalars to W&B without any other tool: read them all, then log them.

    python event_accumulator.py FOLDER
"""

import collections
import os
import sys

import wandb
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

for name in sorted(os.listdir(sys.argv[1])):
    accumulator = EventAccumulator(os.path.join(sys.argv[1], name), size_guidance={"scalars": 0})
    accumulator.Reload()
    rows = collections.defaultdict(dict)
    for tag in accumulator.Tags()["scalars"]:
        for scalar in accumulator.Scalars(tag):
            rows[scalar.step][tag] = scalar.value
    run = wandb.init(project="bench", name=name)
    for step in sorted(rows):
        run.log({**rows[step], "global_step": step})
    run.finish()
