"""Acme Studio, a sketch pad: the sample of a desktop product that calls home."""
