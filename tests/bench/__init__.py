"""Benchmarks: Repoman beside its peers, in one run, on real servers over the loopback.

    python -m tests.bench [--quick] [--list] [--output docs/benchmarks.md] [ROW…]

`subjects.py` starts the servers, `client.py` and `reads.lua` make the load, `measure.py` reads processor time and
memory from /proc, `rows.py` says what is measured, `goals.py` what is aimed at, `report.py` writes the table.
"""
