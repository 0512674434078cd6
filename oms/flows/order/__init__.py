"""Orders become open demand, and change: capture (with or without a reservation), cancel, hold, release, read.

capture → lines open, or allocated at once for a pick-up → wake "broker" and "project"
"""
