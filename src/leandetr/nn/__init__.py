"""Bricks that know tensors but no detector."""
