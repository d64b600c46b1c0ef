"""HTTP server for exported files: KServe's v2 protocol and a plain upload, with dynamic batching and metrics."""

from .command import add_arguments, serve

__all__ = ['add_arguments', 'serve']
