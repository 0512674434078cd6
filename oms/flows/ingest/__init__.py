"""Feeds become facts: baselines and movements enter the ledger here.

receive (stage, gate) → apply (chunks) → messages (movements) → acknowledge (what a source has posted of ours).
"""
