"""Everything that is done on hosts goes through here: archives, Ansible, kept SSH, keys, jobs.

Called by images, source, prepare, deploy and what observes. May call topology and below.
"""
