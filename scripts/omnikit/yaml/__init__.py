"""Settings as text and as trees: strict YAML in which every value remembers its file and line.

Called by config, foreign and whoever shows settings. May call hostkit.base.
"""
