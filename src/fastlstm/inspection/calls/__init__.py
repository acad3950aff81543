"""Calls of a model that are looked into, as inference: nothing is drawn, nothing is dropped.

`inference` has the result as a function of x and its gradient, at the speed of training. `watch`
records what every recurrent layer computed, and has the gradients at every step: `by_step` computes
them one step after the other, which takes several times as long.
"""
