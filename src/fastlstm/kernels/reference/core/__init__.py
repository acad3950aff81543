"""The common code of all cells: the walk through time, stacks, products, activations."""
