"""A private network of virtual machines on this box."""
