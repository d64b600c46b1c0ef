"""Launching, the Runner built from a config and flags, hooks, inference."""
