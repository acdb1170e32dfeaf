"""`python -m repoman.server`: what `make run` starts."""

import os

from repoman.server.supervisor import main

# No clearing up of the interpreter: nothing is left that could wait for a thread.
status = main()
os._exit(status)
