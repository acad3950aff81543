"""Forecasting: how series are read, encoded, cut into windows, and continued with intervals."""
