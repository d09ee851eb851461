"""Campaigns: scenarios x strategies x seeds x faults, in parts that can run anywhere."""
