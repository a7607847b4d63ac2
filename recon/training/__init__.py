"Training: losses, optimiser, checkpoints and the one loop."
