"""What callers pass, checked and brought into forms that kernels can read."""
