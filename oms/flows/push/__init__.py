"""Availability reaches the channels.

project (touched skus become what each channel may sell) → prepare (what is due becomes pushes) → send.
"""
