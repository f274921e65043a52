"""Network boot in one process: DHCP, TFTP and HTTP for machines that live in RAM."""
