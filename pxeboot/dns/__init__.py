"""DNS: names of nodes, answered here; everything else, asked elsewhere."""
