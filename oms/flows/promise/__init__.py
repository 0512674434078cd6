"""What may be promised: the number (read), why it is that number (explain), where it lies nearby (nearby)."""
