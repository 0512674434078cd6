"""Stock at a location is changed by its own people: received, moved, counted, written off.

What is received waits under a hold where it may not be sold yet; what is lost above a limit waits for a second person.
Every change is a movement of ours, told to the owner of the quantity until it acknowledges it.
"""
