"""What a trainer reads: sequences, long streams, and batches that a user makes."""
