"""The vocabulary every other folder speaks: pure Python values, no ORM, no HTTP server, no settings."""
