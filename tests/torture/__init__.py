"""A storm of clients against a real server that is killed again and again, and a check of every promise it made.

    python -m tests.torture --rounds 20 --seconds 10 [--database postgresql] [--seed 7]

Clients push blobs, manifests, tags and files, resume uploads, mount, delete and read, beside a collector in a loop. At a
random moment every process of the server gets SIGKILL (in some rounds SIGTERM, or single processes are killed before).
After the restart each acknowledged write must read back with its bytes, a write of unknown outcome must be wholly there
or wholly absent, and `manage.py fsck --rehash` must find nothing. In the end everything is deleted, purged and collected,
and the store must be empty.
"""
