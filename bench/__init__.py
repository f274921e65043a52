"""Measurements against the peers, on this machine, side by side."""
