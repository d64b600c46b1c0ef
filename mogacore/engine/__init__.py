"""Training and testing: options, configs, launching, the Runner, hooks, schedules, checkpoints, resuming."""
