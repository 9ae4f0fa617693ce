"""The sentence patterns."""
