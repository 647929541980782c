"""What makes batches: the user's Sequence or generator, adapted, and how it travels to a producer."""
