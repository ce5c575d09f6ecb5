"""Prints what TensorBoard's own reader makes of every value below a directory, whatever its kind, as JSON.

Usage: python every_kind.py DIR

Needs the package `tensorboard` and nothing else. Nothing is sampled and nothing is purged. The answer on stdout (where
numbers may be `NaN` or `Infinity`, as Python writes them):

    {"RUN": {"counts": {KIND: n, …}, "graphs": [FILE, …], "tags": {"TAG": [POINT, …], …}}, …}

RUN is the directory relative to DIR (`.` for DIR itself). `counts` counts values as they stand in the files, before
TensorBoard changes anything; `graphs` are the graphs and the run metadata that are events of their own. A POINT is `{"step": s, "kind": KIND, …}` with what its kind needs:

    images          "width", "height" (texts), "files": [FILE, …]
    audio           "clips": [{FILE…, "label": text}, …]; the labels are as they stand, because TensorBoard drops them
    histograms      "bins": [[left, right, weight], …]: as TensorBoard shows them, so that those of a HistogramProto
                    are float32, without empty ones outside and with min and max as the outermost edges
    text            "shape", "strings": [text, …] in row-major order
    pr_curves       "rows": six lists: true and false positives, true and false negatives, precision, recall
    mesh            "name", "part" (VERTEX, FACE, COLOR), "values": nested lists
    hparams         "experiment", "start" or "end": the message as JSON, with the names of its fields
    custom_scalars  "layout": the message as JSON, and FILE of its bytes
    all others      "dtype" (of TensorFlow), "shape", and "strings": [FILE, …] or "values": nested lists

A FILE is `{"sha256": hex, "size": bytes}`. Scalars are in `counts` alone: `event_accumulator.py` reads them.
"""

import collections
import hashlib
import json
import pathlib
import sys

from google.protobuf import json_format
from tensorboard.backend.event_processing import event_file_loader
from tensorboard.backend.event_processing import plugin_event_accumulator as event_accumulator
from tensorboard.compat.proto import types_pb2
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams import plugin_data_pb2 as hparams_pb2
from tensorboard.plugins.mesh import plugin_data_pb2 as mesh_pb2
from tensorboard.util import tensor_util

OLD_FORMS = {
    "simple_value": "scalars",
    "image": "images",
    "audio": "audio",
    "histo": "histograms",
    "obsolete_old_style_histogram": "obsolete_histograms",
}
GRAPHS = {
    "graph_run_metadata",
    "graph_run_metadata_graph",
    "graph_keras_model",
    "graph_tagged_run_metadata",
}


def file(content):
    return {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}


def message(proto):
    return json_format.MessageToDict(proto, preserving_proto_field_name=True)


def kind_of(plugin, tensor):
    """The kind of a tensor by the plugin that its tag belongs to."""
    if plugin in GRAPHS:
        return "graphs"
    if plugin == "tensor":
        return "tensors"
    if plugin:
        return plugin
    is_number = tensor.dtype not in (types_pb2.DT_INVALID, types_pb2.DT_STRING)
    elements = 1
    for dim in tensor.tensor_shape.dim:
        elements *= dim.size
    return "scalars" if is_number and elements == 1 else "tensors"


def as_they_stand(directory):
    """How many values of each kind the files hold, their graphs, and what TensorBoard drops: labels of sounds, by tag."""
    found = collections.Counter()
    graphs = []
    labels = collections.defaultdict(list)
    plugins = {}
    for path in sorted(directory.glob("*tfevents*")):
        for event in event_file_loader.LegacyEventFileLoader(str(path)).Load():
            what = event.WhichOneof("what")
            if what in ("graph_def", "meta_graph_def", "tagged_run_metadata"):
                content = getattr(event, what)
                graphs.append(file(content.run_metadata if what == "tagged_run_metadata" else content))
            for value in event.summary.value:
                form = value.WhichOneof("value")
                plugin = plugins.setdefault(value.tag, value.metadata.plugin_data.plugin_name)
                if form in OLD_FORMS:
                    found[OLD_FORMS[form]] += 1
                elif form == "tensor" or plugin:
                    found[kind_of(plugin, value.tensor)] += 1
                    if plugin == "audio":
                        labels[value.tag].append(value.tensor.string_val[1::2])
    found["graphs"] += len(graphs)
    return {"counts": +found, "graphs": graphs}, labels


def point(kind, metadata, tensor):
    """What a value of that kind holds."""
    if kind == "hparams":
        data = hparams_pb2.HParamsPluginData.FromString(metadata.plugin_data.content)
        names = {"experiment": "experiment", "session_start_info": "start", "session_end_info": "end"}
        field = data.WhichOneof("data")
        return {names[field]: message(getattr(data, field))}
    array = tensor_util.make_ndarray(tensor)
    if kind == "images":
        width, height, *files = array.tolist()
        return {"width": width.decode(), "height": height.decode(), "files": [file(content) for content in files]}
    if kind == "audio":
        return {"clips": [file(content) | {"label": ""} for content in array.tolist()]}
    if kind == "histograms":
        return {"bins": array.tolist()}
    if kind == "text":
        strings = [content.decode() for content in array.reshape(-1).tolist()]
        return {"shape": list(array.shape), "strings": strings}
    if kind == "pr_curves":
        return {"rows": array.tolist()}
    if kind == "mesh":
        data = mesh_pb2.MeshPluginData.FromString(metadata.plugin_data.content)
        part = mesh_pb2.MeshPluginData.ContentType.Name(data.content_type)
        return {"name": data.name, "part": part, "values": array.tolist()}
    if kind == "custom_scalars":
        content = array.item()
        return {"layout": message(layout_pb2.Layout.FromString(content))} | file(content)
    answer = {"dtype": types_pb2.DataType.Name(tensor.dtype), "shape": list(array.shape)}
    if array.dtype.kind in "OS":
        return answer | {"strings": [file(content) for content in array.reshape(-1).tolist()]}
    return answer | {"values": array.tolist()}


def read(directory):
    everything = {event_accumulator.TENSORS: 0}
    accumulator = event_accumulator.EventAccumulator(str(directory), everything, purge_orphaned_data=False)
    accumulator.Reload()
    answer, labels = as_they_stand(directory)
    tags = {}
    for tag in accumulator.Tags()[event_accumulator.TENSORS]:
        metadata = accumulator.summary_metadata.get(tag)
        plugin = metadata.plugin_data.plugin_name if metadata is not None else ""
        points = []
        for event in accumulator.Tensors(tag):
            kind = kind_of(plugin, event.tensor_proto)
            if kind != "scalars":
                points.append({"step": event.step, "kind": kind} | point(kind, metadata, event.tensor_proto))
        for clips, texts in zip(points, labels.get(tag, [])):
            for clip, text in zip(clips["clips"], texts, strict=True):
                clip["label"] = text.decode()
        if points:
            tags[tag] = points
    return answer | {"tags": tags}


def main(root):
    runs = sorted({path.parent for path in root.rglob("*tfevents*") if path.is_file()})
    answer = {run.relative_to(root).as_posix(): read(run) for run in runs}
    json.dump(answer, sys.stdout, indent=None, separators=(",", ":"))
    print()


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
