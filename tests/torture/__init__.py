"""A storm of clients against a real server that is killed again and again, and a check of every promise it made.

    python -m tests.torture --rounds 20 --seconds 10 [--database postgresql] [--seed 7]

Clients push blobs, manifests, tags and files, resume uploads, mount, delete and read; they publish npm and PyPI releases
into packages that all of them share, tag, deprecate, yank, remove and bring them back; and they fetch through remotes of
every format, whose upstream lives here and fails now and then. Beside them a collector runs in a loop. At a random moment
every process of the server gets SIGKILL (in some rounds SIGTERM, or single processes are killed before).

After the restart each acknowledged write must read back with its bytes and stand in its package's document with their
digest; a write of unknown outcome must be wholly there or wholly absent; of several contents of one release one has won;
what was removed cannot be published again; what upstreams have is served right, and then also without them; and
`manage.py fsck --rehash` must find nothing. In the end everything is deleted, purged and collected, and the store must be
empty.
"""
