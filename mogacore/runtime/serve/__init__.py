"""HTTP server for exported files: KServe's v2 protocol and a plain upload, with dynamic batching and metrics."""
