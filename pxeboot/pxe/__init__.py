"""What should this client boot, and in which words is it told."""
