"""Searching: what one schedule needs to run, what a failing one becomes, what many amount to."""
