"""Training on several GPUs of one host: the run's process is rank 0, the others are processes that it starts."""
