"""The calls of the API, one module for each noun: read the request, ask a service, show the result."""
