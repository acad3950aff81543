"""Layers around recurrent ones: which steps they read, in which order, and what comes of it."""
