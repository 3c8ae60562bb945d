"""A micro-institution: its Flower app, its work, its time limit."""
