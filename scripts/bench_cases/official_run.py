"""Makes copies of one offline run that the official client really recorded. Runs in that client's environment:

    python official_run.py FOLDER COPIES ROWS

Only the run's id and name differ between the copies; everything else is the bytes that the client wrote.
"""

import os
import pathlib
import random
import shutil
import struct
import sys
import zlib

BLOCK, HEAD, HEADER = 32768, 7, b":W&B\xe1\xbe\x00"
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4


def records(log):
    """The records of a log, each put together from its chunks."""
    data, at, record = log.read_bytes(), len(HEADER), b""
    while at + HEAD <= len(data):
        left = BLOCK - at % BLOCK
        if left < HEAD:
            at += left
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)
        record += data[at + HEAD : at + HEAD + length]
        at += HEAD + length
        if kind in (FULL, LAST):
            yield record
            record = b""


def framed(records):
    """A log of these records."""
    log = bytearray(HEADER)
    for record in records:
        begins = True
        while True:
            left = BLOCK - len(log) % BLOCK
            if left < HEAD:
                log += bytes(left)
                continue
            piece, record = record[: left - HEAD], record[left - HEAD :]
            kind = (FULL if begins else LAST) if not record else (FIRST if begins else MIDDLE)
            log += struct.pack("<IHB", zlib.crc32(bytes([kind]) + piece), len(piece), kind) + piece
            begins = False
            if not record:
                break
    return bytes(log)


def record_one(folder, rows):
    """The directory of one finished offline run."""
    os.environ.update(WANDB_MODE="offline", WANDB_DIR=str(folder), WANDB_SILENT="true", WANDB_DISABLE_GIT="true")
    import wandb

    settings = wandb.Settings(x_disable_stats=True, console="off")
    run = wandb.init(project="bench", id="template", config={"lr": 0.1, "layers": 3}, settings=settings)
    chance = random.Random(1)
    for _ in range(rows):
        run.log({key: chance.random() for key in ("loss", "acc", "val/loss", "val/acc")})
    run.finish()
    # Only then is the log whole.
    wandb.teardown()
    return next((folder / "wandb").glob("offline-run-*"))


def main(folder, copies, rows):
    from wandb.proto import wandb_internal_pb2

    folder.mkdir(parents=True, exist_ok=True)
    one = record_one(folder / "template", rows)
    parts = list(records(one / "run-template.wandb"))
    for number in range(copies):
        run_id, copied = f"r{number:07d}", []
        for part in parts:
            record = wandb_internal_pb2.Record.FromString(part)
            if record.WhichOneof("record_type") == "run":
                record.run.run_id, record.run.display_name = run_id, f"run {number}"
                part = record.SerializeToString()
            copied.append(part)
        time = f"{number // 3600:02d}{number // 60 % 60:02d}{number % 60:02d}"
        directory = folder / "wandb" / f"offline-run-20260101_{time}-{run_id}"
        shutil.copytree(one / "files", directory / "files")
        (directory / f"run-{run_id}.wandb").write_bytes(framed(copied))
    shutil.rmtree(folder / "template")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
