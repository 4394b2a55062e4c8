"""Who belongs to a ring: its authority, certificates, tokens, and what the ring remembers of them. Knows no wire."""
