"""Prints what TensorBoard's own `EventAccumulator` reads below a directory, every scalar point of every TB run, as JSON.

Usage: python event_accumulator.py DIR

Needs the package `tensorboard` and nothing else. Nothing is sampled and nothing is purged. The answer on stdout:

    {"RUN": {"TAG": [[step, wall_time, value, dtype], …], …}, …}

RUN is the directory relative to DIR (`.` for DIR itself), with `/` between its parts. Points stand in the order of the
file, and files in the order of their names. `step` is an integer. `wall_time` and the value of a floating dtype are
strings: the 64 bits of the number as an f64, in hexadecimal, most significant digit first (an f32, f16 or bfloat16 is
exact in an f64); in Rust `f64::from_bits(u64::from_str_radix(text, 16)?)`. The value of an integer or bool dtype is an
integer. `dtype` is numpy's name of the type in the file; `simple_value` is a float32.

A run that the accumulator cannot read through to its end is in the answer with what it read until there.
"""

import json
import pathlib
import struct
import sys

from tensorboard.backend.event_processing import event_accumulator
from tensorboard.compat.proto import types_pb2
from tensorboard.util import tensor_util


def bits(number):
    return struct.pack(">d", number).hex()


def tensor_point(event):
    """One point of a tensor tag, or None where it does not hold exactly one number."""
    tensor = event.tensor_proto
    if tensor.dtype == types_pb2.DT_BFLOAT16:
        return bfloat16_point(event)
    array = tensor_util.make_ndarray(tensor)
    if array.size != 1 or array.dtype.kind in "OSU":
        return None
    value = array.reshape(())[()]
    value = int(value) if array.dtype.kind in "iub" else bits(float(value))
    return [event.step, bits(event.wall_time), value, array.dtype.name]


def bfloat16_point(event):
    """The same for a bfloat16, which TensorBoard alone has no numpy type for: it is the upper half of an f32."""
    content = event.tensor_proto.tensor_content
    halves = [half for (half,) in struct.iter_unpack("<H", content)] if content else event.tensor_proto.half_val
    if len(halves) != 1:
        return None
    (value,) = struct.unpack(">f", struct.pack(">I", halves[0] << 16))
    return [event.step, bits(event.wall_time), bits(value), "bfloat16"]


def scalars(directory):
    """All scalars of one TB run: tag to points."""
    everything = {event_accumulator.SCALARS: 0, event_accumulator.TENSORS: 0}
    accumulator = event_accumulator.EventAccumulator(str(directory), everything, purge_orphaned_data=False)
    accumulator.Reload()
    found = {}
    for tag in accumulator.Tags()[event_accumulator.SCALARS]:
        found[tag] = [[e.step, bits(e.wall_time), bits(e.value), "float32"] for e in accumulator.Scalars(tag)]
    for tag in accumulator.Tags()[event_accumulator.TENSORS]:
        # Not every tensor has metadata.
        metadata = accumulator.summary_metadata.get(tag)
        if metadata is not None and metadata.plugin_data.plugin_name == "scalars":
            points = [point for point in map(tensor_point, accumulator.Tensors(tag)) if point is not None]
            found[tag] = found.get(tag, []) + points
    return found


def main(root):
    runs = sorted({path.parent for path in root.rglob("*tfevents*") if path.is_file()})
    answer = {run.relative_to(root).as_posix(): scalars(run) for run in runs}
    json.dump(answer, sys.stdout, indent=None, separators=(",", ":"))
    print()


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
