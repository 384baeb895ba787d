"""From configuration to plan: instances, ranks, devices, ports. All arithmetic is here. No I/O.

Called by whoever needs a plan (make_plan). May call plan and config.
"""
