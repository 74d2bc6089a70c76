"""Training: stages as data, schedules, losses, the trainer, its callbacks and checkpoints."""
