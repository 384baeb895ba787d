"""What the twin does, a subject a module."""
