"""Data of the digits demo and the pictures it ends with."""
