"""What goes wrong with weights, in one line."""

from nfnet_mm.errors import UserError, short, some

__all__ = ['ConversionError', 'ReadError', 'short', 'some']


class ConversionError(UserError):
    """Weights are not what they should be; the message is one line and quotes the offending keys."""


class ReadError(ConversionError):
    """A file cannot be read safely, or is not what it should be; the message is one line."""
