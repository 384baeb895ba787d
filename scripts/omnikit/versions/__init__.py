"""What an image has, held against omni-infer's release that the configuration is for.

Called by deploy and checks. May call prepare and below.
"""
