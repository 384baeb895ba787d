"""The shared package of the toolkit: functions of text and data that the scripts call."""
