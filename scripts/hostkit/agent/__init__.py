"""How a host takes the toolkit's code and does a job by its name.

Called by scripts/host_agent.py; omnikit.fleet and omnikit.prepare send it as text. May call base;
the jobs themselves lie in the rooms above and are imported when one is called for.
"""
