"""The trained thing at work."""
