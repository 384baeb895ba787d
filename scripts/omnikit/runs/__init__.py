"""Commands that change hosts: what they began is written down first, then proved or ended, and
finished by the next command where one was cut off. For the verbs that change an environment.

Called by deploy and the scripts that change hosts. May call versions and below, timeline.
"""
