"""Files of other tools (omni_infer_deployment.yml, Ansible inventories), read as settings of ours.

Called by config, which takes them as layers, and by the scripts that import and export.
May call yaml.
"""
