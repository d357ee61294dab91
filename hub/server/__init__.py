"""The server under the hub: all code that knows uvicorn."""
