"""Getting things from upstreams: one guarded HTTP client, and flights that any number of clients wait for together.

`guard` decides which addresses may be connected at all, `client` speaks HTTP with credentials that stay where they
belong, `flight` carries out a Plan once for everybody and verifies what comes, `breaker` counts failures. Nothing here
knows a format, a repository's row or a client's request.
"""
