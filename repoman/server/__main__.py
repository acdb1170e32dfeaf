"""`python -m repoman.server`: what `make run` starts."""

import os

from repoman.server.supervisor import main

os.umask(0o027)  # password hashes, keys and tenants' bytes are nobody's business but this account's and its group's
# No clearing up of the interpreter: nothing is left that could wait for a thread.
status = main()
os._exit(status)
