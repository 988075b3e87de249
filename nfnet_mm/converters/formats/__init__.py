"""File formats of weights: bytes to arrays, without running anything that a file holds."""
