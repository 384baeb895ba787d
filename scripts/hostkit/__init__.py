"""What runs on the hosts: shipped whole, standard library only, Python 3.9.

It knows nothing of the control host: nothing here imports omnikit. A host runs it out of the
archive that omnikit.fleet.bundle makes, with "python3 -I -S".
"""
