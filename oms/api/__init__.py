"""Doors for programs: parse, call one flow, answer. Each module exports `routes`; each handler states its roles."""

PUBLIC = frozenset({"public"})
"""The roles of a handler that needs no key: health, metrics, the API's description, hooks that are signed."""
