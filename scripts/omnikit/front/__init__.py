"""What all front doors share: the scripts' command lines, and the tasks made of them.

And what all of it says in Chinese. Called by scripts/*.py and tasks.py; reports and the live view
ask it for their words. May call config and what is below it.
"""
