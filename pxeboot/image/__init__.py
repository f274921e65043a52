"""Images: from a recipe to an immutable entry of the library."""
