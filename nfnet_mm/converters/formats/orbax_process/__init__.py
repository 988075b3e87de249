"""The process that reads Orbax checkpoints for :mod:`nfnet_mm.converters.formats.orbax`."""
