"""IPv6 neighbour discovery, as far as it keeps a machine that boots over IPv4 from waiting."""
