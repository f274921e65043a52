"""Nodes, leases and boots: what they are, and where they are kept."""
