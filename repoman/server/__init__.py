"""The server as a family of processes: supervisor, image, web processes, worker and scheduler."""
