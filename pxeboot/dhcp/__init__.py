"""DHCP: the wire, the answers, the sockets."""
