"""The ring: members, successor lists, fingers, lookup. Chord as corrected by Zave."""
