"""Records several small runs offline with the official client, each with something of its own, below one directory.

Usage: python record_variants.py DIR [NAME…]

The id of each run is the name of its function; all of them go to the project `variants`. Without names all are recorded.
"""

import pathlib
import sys

import numpy as np
import wandb

VARIANTS = []


def variant(**init):
    """Runs the function between `init` and `finish`; what it returns is the exit code."""

    def register(function):
        VARIANTS.append((function, init))
        return function

    return register


def settings(**more):
    return wandb.Settings(console="off", **more)


@variant(config={"lr": 1e-05, "large": 2**53 + 1, "nested": {"a": {"b": [1, {"c": None}]}}, "nan": float("nan")})
def plain(run):
    for i in range(5):
        run.log({"loss": 0.5**i, "count": i, "whole": float(i), "small": 1e-7 * i, "big": 123456789.0 * 10**i})
    run.log({"loss": 0.0}, step=100)
    run.log({"a": 1}, commit=False)
    run.log({"b": -0.0})
    run.log({"last": True}, step=200)


@variant()
def nested(run):
    for i in range(4):
        run.log({
            "d": {"x": i, "deeper": {"y": [i, {"z": None}], "empty": {}}},
            "a.b": i,
            "a": {"b": -i},
            "with/slash": {"in.side": 1},
            "ключ ü 🦀 \"q\" \\": "ü 🦀 \" \\ \n \t \u2028",
            "empty": {},
            "list": [],
            "text": "",
            "null": None,
        })


@variant()
def odd_numbers(run):
    numbers = [float("nan"), float("inf"), float("-inf"), -0.0, 5e-324, 1.7976931348623157e308, 0.1, 1e6, 1e22]
    numbers += [2**53 + 1, 2**63 - 1, -(2**63), 2**63, 2**64 - 1, 10**30, np.float32(0.1), np.float16(0.1), np.int8(-1)]
    for number in numbers:
        run.log({"value": number, "nested": {"value": number}})
    run.summary["best"] = {"nan": float("nan"), "large": 2**64 - 1}


@variant()
def metrics(run):
    run.define_metric("epoch", hidden=True)
    run.define_metric("batch", step_metric="epoch", step_sync=False)
    run.define_metric("validation/*", step_metric="epoch", summary="min")
    run.define_metric("loss", summary="min,max,mean,last,first")
    run.define_metric("no_summary", summary="none")
    run.define_metric("*", step_metric="global_step")
    run.define_metric("esc\\.aped", step_metric="epoch")
    for i in range(6):
        row = {"loss": (i - 3) ** 2, "epoch": i // 2, "no_summary": i, "other": i, "esc.aped": i}
        if i % 2:
            row = {"validation/accuracy": i / 8, "validation/deep": {"er": i}, "batch": i}
        run.log(row)
    run.define_metric("loss", summary="max", overwrite=True)


@variant(name="before", tags=["a"], notes="n", group="g", job_type="j")
def described(run):
    run.name = "after ü"
    run.notes = "several\nlines"
    run.tags = run.tags + ("b, c",)
    run.config.update({"kept": 1, "changed": {"x": 1, "y": 2}})
    run.config.update({"changed": {"x": 3}}, allow_val_change=True)
    run.log({"x": 1, "gone": 2, "deep": {"er": 3, "est": 4}})
    run.summary["mine"] = {"a": {"b": 1}}
    run.summary["list"] = [1, 2]
    run.summary["none"] = None
    run.summary["empty"] = {}
    del run.summary["gone"]
    run.summary.update({"x": "text"})


@variant(
    group="sweep ü",
    job_type="train",
    notes="",
    settings=settings(
        sweep_id="sw33p1d",
        host="trainer-0",
        run_name="from the settings",
        git_remote_url="https://git.example.com/team/project.git",
        git_commit="0123456789abcdef0123456789abcdef01234567",
    ),
)
def swept(run):
    """An agent of a sweep, in a repository."""
    run.log({"x": 1})
    run.tags = ("first",)
    run.tags = ()
    run.notes = "said later"


@variant(config={"a": {"b": {"c": 1, "d": [1, 2]}, "text": "old"}, "whole": {"x": 1}, "list": [{"y": 1}]})
def changed_config(run):
    run.config.update({"a": {"b": {"c": 2}}}, allow_val_change=True)
    run.config.update({"whole": 3, "new": {"deep": {"er": None}}}, allow_val_change=True)
    run.config.update({"list": [{"z": 2}, []]}, allow_val_change=True)
    run.config["key.with.dots"] = {"in.side": 1}
    run.config.setdefaults({"new": 5, "late": float("inf")})
    run.log({"x": 1})
    run.config.update({"after": "a row"})


@variant()
def deep_summary(run):
    run.log({"x": 1, "deep": {"er": {"a": 1, "b": 2}, "est": 3}, "flat": 1})
    run.summary["mine"] = {"a": {"b": 1, "c": 2}, "d": 3}
    run.summary["mine"] = {"e": 1}
    run.summary["flat"] = {"now": "an object"}
    run.summary["dotted.key"] = 1
    run.summary["list"] = [{"a": float("nan")}]
    run.summary["gone"] = {"all": {"of": "it"}}
    del run.summary["gone"]
    run.log({"flat": 2, "deep": {"er": {"a": 5}}})


@variant()
def defined(run):
    run.define_metric("train/*", step_metric="train/epoch", summary="max,min,last", hidden=True)
    run.define_metric("train/lr", summary="none", hidden=False)
    run.define_metric("val/*", summary="mean,first", step_sync=True, step_metric="epoch")
    run.define_metric("val/loss", summary="min")
    run.define_metric("val/loss", hidden=True)
    run.define_metric("copied", summary="copy")
    run.define_metric("deep.er", summary="max")
    run.define_metric("deep.*", summary="min")
    for i in range(5):
        run.log({"train/loss": (i - 2) ** 2, "train/epoch": i // 2, "train/lr": 0.1 * i, "epoch": i})
        run.log({"val/loss": i, "val/accuracy": -i, "copied": i, "deep": {"er": i, "est": i}, "text": "word"})


@variant()
def alerts(run):
    run.alert("First", "same text", level="INFO", wait_duration=0)
    run.alert("First", "same text", level=wandb.AlertLevel.ERROR, wait_duration=300)
    run.log({"x": 1})
    run.alert("ü \"quoted\"", "several\nlines", wait_duration=0.5)


@variant()
def more_media(run):
    directory = pathlib.Path(run.dir).parent / "made"
    directory.mkdir()
    for name in ["clip.mp4", "sound.wav", "mesh.obj", "protein.pdb", "page.html"]:
        (directory / name).write_text(f"what is in {name}")
    picture = np.zeros((4, 5, 3), dtype=np.uint8)
    boxes = {"guess": {"box_data": [{"position": {"minX": 0, "maxX": 0.5, "minY": 0, "maxY": 1}, "class_id": 1}]}}
    masks = {"truth": {"mask_data": np.ones((4, 5), dtype=np.uint8), "class_labels": {1: "cat"}}}
    scene = {"type": "lidar/beta", "points": np.array([[0.0, 1.0, 2.0]]), "boxes": np.array([])}
    run.log({
        "clip": wandb.Video(str(directory / "clip.mp4"), caption="ü"),
        "sound": wandb.Audio(str(directory / "sound.wav"), caption="short"),
        "mesh": wandb.Object3D((directory / "mesh.obj").open()),
        "cloud": wandb.Object3D(np.array([[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]])),
        "scene": wandb.Object3D(scene),
        "protein": wandb.Molecule(str(directory / "protein.pdb")),
        "page": wandb.Html((directory / "page.html").open()),
        "boxed": wandb.Image(picture, boxes=boxes, masks=masks),
        "spread": wandb.Histogram(np_histogram=np.histogram([1.0, 2.0, 2.5], bins=2)),
        "an/odd key ü": wandb.Image(picture, caption="odd"),
    })
    # Again at the next step, as a training loop does.
    run.log({"clip": wandb.Video(str(directory / "clip.mp4")), "boxed": wandb.Image(picture + 1, boxes=boxes)})
    run.summary["poster"] = wandb.Image(picture + 2)


@variant()
def summary_below_an_object(run):
    run.summary["mine"] = {"a": {"b": 1}}
    run.summary["mine"]["a"]["c"] = 2


@variant()
def files(run):
    directory = pathlib.Path(run.dir)
    (directory / "deep" / "er").mkdir(parents=True)
    for name, text in [("deep/er/ü.txt", "ü\n"), ("empty.txt", ""), ("late.txt", "first")]:
        (directory / name).write_text(text)
    run.save(str(directory / "deep/er/*"), base_path=run.dir, policy="now")
    run.save(str(directory / "empty.txt"), base_path=run.dir, policy="end")
    run.save(str(directory / "late.txt"), base_path=run.dir, policy="live")
    (directory / "late.txt").write_text("second, longer")
    run.log({"x": 1})


@variant()
def media(run):
    run.log({
        "page": wandb.Html("<b>page</b>"),
        "picture": wandb.Image(np.zeros((4, 5, 3), dtype=np.uint8), caption="black"),
        "pictures": [wandb.Image(np.full((4, 5, 3), i, dtype=np.uint8)) for i in range(2)],
        "spread": wandb.Histogram([1, 2, 3, 3]),
        "in": {"side": wandb.Html("inside")},
    })


@variant()
def failed(run):
    run.log({"x": 1})
    return 3


@variant(settings=settings(x_history_value_encoding="json,typed"))
def typed(run):
    for value in [None, True, -1, 2**63 - 1, 2**63, 0.1, float("nan"), float("-inf"), "text", [1, {"a": None}], {"a": 1.5}]:
        run.log({"value": value, "nested": {"value": value}})


@variant(resume="allow")
def resumable(run):
    run.log({"x": 1})
    run.log({"x": 2}, step=7)


@variant()
def preempting(run):
    run.log({"x": 1})
    run.mark_preempting()
    run.log({"x": 2})


@variant()
def many(run):
    """More than one block, and rows larger than one."""
    for i in range(300):
        run.log({f"metric/{j}": i * 0.1 + j for j in range(20)})
    run.log({"long": "x" * 100_000})


@variant()
def nothing(run):
    pass


@variant()
def without_exit(run):
    """The log is cut by the test, as are the next two."""
    for i in range(5):
        run.log({"x": i})


@variant()
def without_last_row(run):
    for i in range(5):
        run.log({"x": i})


@variant()
def torn(run):
    for i in range(5):
        run.log({"x": i})


@variant(settings=wandb.Settings(console="wrap"))
def console(run):
    print("on stdout")
    print("on stderr", file=sys.stderr)
    run.write_logs("from a logger\nin two lines")
    run.log({"x": 1})


@variant()
def alert(run):
    run.log({"x": 1})
    run.alert("Title", "Text", level="WARN")


@variant()
def table(run):
    run.log({"table": wandb.Table(columns=["a", "b"], data=[[1, "x"], [2, "y"]]), "x": 1})


@variant()
def artifact(run):
    made = wandb.Artifact("data", type="dataset")
    with made.new_file("saved.txt") as file:
        file.write("x")
    run.log_artifact(made)
    run.log({"x": 1})


def main(directory, *names):
    for function, init in VARIANTS:
        name = function.__name__
        if names and name not in names:
            continue
        # A run without a name is named by the server.
        init = {"settings": settings(), "name": name, **init}
        run = wandb.init(mode="offline", project="variants", id=name, dir=directory, **init)
        run.finish(exit_code=function(run) or 0)


if __name__ == "__main__":
    main(*sys.argv[1:])
