"""What runs on the hosts: shipped whole, standard library only, Python 3.9.

That holds for every module, also where the control host or a container runs it. It knows nothing of
the control host: nothing here imports omnikit. A host runs it out of the archive that
omnikit.fleet.bundle makes, with "python3 -I -S".
"""
