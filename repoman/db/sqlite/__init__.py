"""SQLite with one writer at a time, queued fairly over threads and processes."""
