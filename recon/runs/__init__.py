"What lies on disk after training: runs, checkpoints, comparisons."
