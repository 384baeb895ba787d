"""What an image or a container of this host has of omni-infer, and whether that is old.

Called as jobs, and by omnikit.versions for the judgement. May call base, containers, source, nodes.
"""
