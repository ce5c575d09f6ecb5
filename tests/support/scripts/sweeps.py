"""Writes three sweeps of 20 sessions each, as people write them with tensorboardX, below the working directory.

`writers`: a writer for each session, which trains and says its hyperparameters in its own directory.
`one_writer`: 20 calls of `add_hparams` on one writer that writes nothing else.
`trained`: a run with values, which calls `add_hparams` three times.
"""

import tensorboardX
from tensorboardX.summary import hparams


def config(trial):
    return {"lr": 0.1 / (trial + 1), "layers": 1 + trial % 4, "optimizer": ["sgd", "adam"][trial % 2], "amp": trial % 3 == 0}


for trial in range(20):
    writer = tensorboardX.SummaryWriter(f"writers/trial_{trial:02}")
    for summary in hparams(config(trial), {"accuracy": 0}):
        writer.file_writer.add_summary(summary)
    for step in range(5):
        writer.add_scalar("accuracy", 0.5 + trial / 40 + step / 1000, step)
    writer.close()

writer = tensorboardX.SummaryWriter("one_writer")
for trial in range(20):
    writer.add_hparams(config(trial), {"accuracy": 0.5 + trial / 40}, name=f"trial_{trial:02}")
writer.close()

writer = tensorboardX.SummaryWriter("trained")
for step in range(5):
    writer.add_scalar("accuracy", step / 10, step)
for trial, name in enumerate(["first", "second", "third"]):
    writer.add_hparams(config(trial), {"accuracy": 0.75}, name=name)
    writer.flush()
writer.close()
