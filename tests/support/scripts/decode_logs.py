"""Decodes `.wandb` logs with the official client's own messages and prints what they hold as JSON.

Usage: python decode_logs.py LOG...

The answer on stdout: a list of the logs, each a list of its records, each `[kind, hex]`: the name of the one member that
a record has, and the record with nothing but this member in its canonical form. Nothing is skipped: a log that is not
whole is an error. The framing is read here, because the client has no reader for it in Python any more.
"""

import json
import pathlib
import struct
import sys
import zlib

from wandb.proto import wandb_internal_pb2

BLOCK = 32768
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4


def payloads(data):
    assert data[:7].hex() == "3a572642e1be00", "not a log"
    at, parts = 7, []
    while at < len(data):
        if BLOCK - at % BLOCK < 7:
            at += BLOCK - at % BLOCK
            continue
        checksum, length, kind = struct.unpack_from("<IHB", data, at)
        payload = data[at + 7 : at + 7 + length]
        assert len(payload) == length and zlib.crc32(bytes([kind]) + payload) == checksum, f"damage at {at}"
        at += 7 + length
        assert (kind in (FULL, FIRST)) == (not parts), f"a chunk is missing at {at}"
        parts.append(payload)
        if kind in (FULL, LAST):
            yield b"".join(parts)
            parts = []
    assert not parts, "the log ends early"


def records(path):
    for payload in payloads(pathlib.Path(path).read_bytes()):
        record = wandb_internal_pb2.Record.FromString(payload)
        kind = record.WhichOneof("record_type")
        for field, _ in record.ListFields():
            if field.name != kind:
                record.ClearField(field.name)
        # Says which run a message belongs to while it is on its way between processes.
        if "_info" in getattr(record, kind).DESCRIPTOR.fields_by_name:
            getattr(record, kind).ClearField("_info")
        yield [kind, record.SerializeToString(deterministic=True).hex()]


json.dump([list(records(path)) for path in sys.argv[1:]], sys.stdout)
