"""The runner: explores the scenarios of the kernel model, finds, replays and audits.

``python -m stress --help`` shows the commands; ``stress.catalogue`` is what a scenario is written
with.
"""
