"""Heads, losses, transforms and metrics of the papers' tasks, which need more than torch and mmengine."""
