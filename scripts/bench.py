"""The measuring half of `scripts/bench`, which builds what this needs.

Each case makes its input, then runs ours and the peer in turn, at least five times each; who goes first changes with the
round. What is shown is the median. The cases are in `bench_cases`, the ways of measuring in `bench_cases.harness`.
"""

import argparse
import fnmatch
import pathlib
import sys
import time

from bench_cases import CASES, table
from bench_cases.harness import Bench, refuse_memory_disk

DOCUMENT = pathlib.Path("docs/performance.md")


def main():
    parser = argparse.ArgumentParser(prog="scripts/bench")
    parser.add_argument("case", nargs="*", default=["*"], help="names of cases, with `*`; all by default")
    parser.add_argument("--list", action="store_true", help="only name the cases")
    parser.add_argument("--small", action="store_true", help="tiny inputs, once: shows that the cases work")
    parser.add_argument("--rounds", type=int, help="rounds of each case, instead of its own number")
    parser.add_argument("--print-only", action="store_true", help="do not write into docs/performance.md")
    options = parser.parse_args()
    cases = [case for case in CASES if any(fnmatch.fnmatch(case.name, pattern) for pattern in options.case)]
    if options.list:
        print("\n".join(case.name for case in cases))
        return
    if not cases:
        sys.exit(f"no case is named {' or '.join(options.case)}; `scripts/bench --list` names them")
    bench = Bench(small=options.small)
    if not options.small:
        refuse_memory_disk(bench.home)
    begin = time.monotonic()
    results = []
    for case in cases:
        rounds = 1 if options.small else options.rounds or case.rounds
        print(f"{case.name}: preparing", file=sys.stderr)
        case.prepare(bench)
        results.append(table.Result(case, run(case, bench, rounds)))
        if not options.small:
            print(table.line(results[-1]), file=sys.stderr)
        case.clean(bench)
    minutes = (time.monotonic() - begin) / 60
    bench.close()
    text = table.document(results, bench, minutes)
    print(f"{len(results)} cases passed, 0 failed" if options.small else text)
    if cases == CASES and not (options.small or options.print_only or options.rounds):
        table.write_between_markers(DOCUMENT, text)


def run(case, bench, rounds):
    """The figures of each round, by side."""
    figures = {"ours": [], "peer": []}
    sides = ["ours", "peer"] if case.peer_name else ["ours"]
    for number in range(rounds):
        print(f"{case.name}: round {number + 1} of {rounds}", file=sys.stderr)
        for side in sides[:: 1 if number % 2 == 0 else -1]:
            figures[side].append(getattr(case, side)(bench))
    return figures


if __name__ == "__main__":
    main()
