"""Models of Keras: its files, and its layers' arrays."""
