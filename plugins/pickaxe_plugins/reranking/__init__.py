"""Methods that put candidates into a better order."""
