"""Learngene: From Open-World to Your Learning Task (AAAI 2022), usable without Flower."""
