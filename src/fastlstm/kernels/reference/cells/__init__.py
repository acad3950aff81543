"""The recurrent cells: one step of each, forward and backward."""
