"""PostgreSQL through a pool whose dead connections are noticed before a request gets them."""
