"""Measurements, run by hand: `python -m benchmarks.models`. Nothing here is a test."""
