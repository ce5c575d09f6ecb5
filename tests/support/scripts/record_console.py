"""Records runs offline whose processes print in every way, below one directory.

Usage: python record_console.py DIR

The id of each run is the name of its function; all of them go to the project `console`.
"""

import sys
import time

import wandb


def bars(run):
    """Progress bars as tqdm draws them: carriage returns, and two below each other."""
    for i in range(0, 101, 5):
        sys.stderr.write(f"\r{i:3d}%|{'█' * (i // 10):<10}| {i}/100 [00:{i:02d}<00:00, 9.9it/s]")
        sys.stderr.flush()
    sys.stderr.write("\n")
    for outer in range(3):
        sys.stderr.write(f"\router: {outer + 1}/3")
        for inner in range(4):
            sys.stderr.write(f"\n\rinner: {inner + 1}/4 ")
            sys.stderr.write("\x1b[A")
            sys.stderr.flush()
    sys.stderr.write("\n\n")
    print("after the bars")


def parts(run):
    """Lines that come in pieces, from both streams."""
    for piece in ["one ", "two ", "three", "\nnext"]:
        sys.stdout.write(piece)
        sys.stdout.flush()
        sys.stderr.write(piece.upper())
        sys.stderr.flush()
        time.sleep(0.05)
    print()
    print("half done\rdone")
    print("long: " + "x" * 5000)
    print("\x1b[31mred\x1b[0m \x1b[1mbold\x1b[0m ü 🦀 \t tab", file=sys.stderr)
    print("\n\n\nbelow blank lines")
    run.write_logs("from a logger\nin two lines")
    print("not ended", end="")


def many(run):
    """More lines than a terminal sees, and an attempt to change one that is gone."""
    for i in range(100):
        print(f"line {i}")
        if i % 10 == 0:
            print(f"error {i}", file=sys.stderr)
        if i % 25 == 0:
            run.log({"x": i})
    sys.stdout.write("\x1b[A" * 60 + "top\n")
    sys.stdout.write("\x1b[B" * 3 + "below")


def nothing(run):
    run.log({"x": 1})


def main(directory):
    for function in [bars, parts, many, nothing]:
        name = function.__name__
        settings = wandb.Settings(console="wrap_raw")
        run = wandb.init(mode="offline", project="console", id=name, name=name, dir=directory, settings=settings)
        function(run)
        run.finish()
    # With this setting the client itself does what a terminal does.
    settings = wandb.Settings(console="wrap_emu")
    run = wandb.init(mode="offline", project="console", id="emulated", dir=directory, settings=settings)
    for i in range(5):
        sys.stdout.write(f"\r{i} of 5")
    print("\nfinished")
    print("bad", file=sys.stderr)
    run.finish()


if __name__ == "__main__":
    main(sys.argv[1])
