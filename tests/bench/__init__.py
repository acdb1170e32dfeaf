"""Benchmarks: Repoman beside its peers, in one run, on real servers over the loopback.

    python -m tests.bench [--quick] [--output docs/benchmarks.md] [ROW…]

A row is named by its slug or a beginning of it; `oci`, `npm`, `pypi`, `maven`, `helm` and `remote` are areas, each with a
budget of time of its own (`Plan` in rows.py): `python -m tests.bench npm pypi maven helm remote` takes about a quarter of an
hour, with `--quick` about five minutes.

`subjects.py` and `peers.py` start the servers, `client.py` and `reads.lua` make the load, `installs.py` runs real clients,
`measure.py` reads processor time and memory from /proc, `rows.py` says what is measured of images, `area_*.py` (with
`areas.py`) what is of packages and remotes, `goals.py` what is aimed at, `report.py` and `tables.py` write the table.
"""
