"""What is measured. Each module holds cases of one kind; their order is that of the table.

A case has a `name`, and says what `ours_name` and `peer_name` run (no peer: `None`), the `amount` and the `unit` of what
they work off, the `target`, and with `is_met` whether it is reached. `prepare` makes its input, `ours` and `peer` each run
once and return [`Figures`](harness.py), `clean` takes away what is large.
"""

from . import convert, limits, media, read, runs, upload, watch

CASES = [case for module in (read, convert, media, runs, upload, watch, limits) for case in module.CASES]
