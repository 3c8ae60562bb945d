"""Images of classes that the collective does not know."""
