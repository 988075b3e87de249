"""What the tools share: reading configs, checking what they name, starting runs."""
