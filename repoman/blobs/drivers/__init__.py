"""Storage drivers: they move bytes by key and know nothing else. `base.py` is the contract."""
