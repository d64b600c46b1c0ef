"""What a config means: where its values come from, its schedule, and its parameter groups."""
