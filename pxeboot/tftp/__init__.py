"""TFTP: the wire, one read as a state machine, the sockets."""
