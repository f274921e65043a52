"""The virtual services: what the configuration wants of the kernel's IPVS, and how it is kept so."""
