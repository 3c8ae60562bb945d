"""The learngene as a thing that travels: layers, card, number format."""
