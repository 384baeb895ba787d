"""What all front doors share: the scripts' command lines, and the tasks made of them.

Called by scripts/*.py and tasks.py alone. May call config and what is below it.
"""
