"""What ``--help`` says: examples first, with the program as it was called.

A line with only a backspace keeps the lines of the paragraph after it as they are.
"""

from __future__ import annotations

from typing import Final

from stress.program import PROGRAM


def _said(text: str) -> str:
    return text.replace("python -m stress", PROGRAM)


MAIN: Final = _said("""\
\b
Examples:
  python -m stress                                the main job: everything, in about a minute
  python -m stress list                           what there is to explore
  python -m stress run --schedules 5000           explore every scenario
  python -m stress run 'commit*' --seed 7         some of them, with another seed
  python -m stress replay TOKEN                   the same failure again, with its story
  python -m stress minimize TOKEN                 that failure with the fewest preemptions
  python -m stress verify commit-supply           every interleaving of one
  python -m stress mutants --only M08,M19         find planted bugs
  python -m stress audit locks.jsonl              judge the lock order of a log

\b
Exit codes: 0 pass, 1 finding, 2 wrong usage, 3 inconclusive, 70 an error of our own,
130 interrupted. Each command has its own --help.
""")

LIST: Final = _said("""\
\b
Examples:
  python -m stress list
  python -m stress list 'commit*' --json

Scenarios: their threads, tags, what of the kernel they exercise, which planted bugs they catch.
""")

SHOW: Final = _said("""\
\b
Example:
  python -m stress show TOKEN

What a token holds: scenario, revision, mutant, faults, seed, versions. Nothing is run.
""")

RUN: Final = _said("""\
\b
Examples:
  python -m stress run
  python -m stress run commit-evict --schedules 20000 --strategy pct --depth 4
  python -m stress run 'commit*' --seconds 30 --seed auto --lock-log locks.jsonl.gz
  python -m stress run --html report.html
  python -m stress run --corpus races.toml        known races first

Explore scenarios. Without names all of them; then the canary must be found and the vacuous one
come out inconclusive, and neither decides the verdict of the run.

With --predict N the first N schedules of each are judged as `audit` judges their log; a deadlock
that is predicted is run, and fails the run where it is reached.

With --corpus the known races of a file or a folder are replayed first, as `corpus` does; where a
schedule no longer fits, as many are searched as each scenario has. One that still fails fails the
run; one that gives no answer makes it inconclusive.
""")

REPLAY: Final = _said("""\
\b
Examples:
  python -m stress replay TOKEN
  python -m stress replay TOKEN --html report.html
  python -m stress replay TOKEN --trace story.json --perfetto lanes.json
  python -m stress replay TOKEN --named race.json      the schedule as named operations
  python -m stress replay race.json                    after the code has changed
  python -m stress replay commit-evict --seed 7 --schedule 131

Run one schedule again, recorded in full. Exit codes: 1 reproduced, 0 it no longer fails, 3 it
no longer fits the program. A named schedule is followed as far as the changed program allows, and
what no longer fits is listed.
""")

REPORT: Final = _said("""\
\b
Examples:
  python -m stress report                         the newest run below .stress/
  python -m stress report 20261122T213507Z --html report.html

Make one HTML file of a run: verdicts, rates, findings by fingerprint with their interleavings,
the lock graph. Findings are replayed for it. Without --html it goes into the run's folder.
""")

MINIMIZE: Final = _said("""\
\b
Examples:
  python -m stress minimize TOKEN
  python -m stress minimize TOKEN --json

Find a schedule that fails in the same way with the fewest preemptions, then the fewest switches,
then the fewest steps; say what proves it; and show the one pair of steps whose order decides, the
failing and the passing order side by side. Exit code 3 where the token no longer fails.
""")

BISECT: Final = _said("""\
\b
Examples:
  python -m stress bisect TOKEN --good v1.2
  python -m stress bisect race.json --good v1.2 --bad main --json

Name the first git commit that has a race. Each commit is checked out in a temporary working tree,
and the program there is asked in processes of its own: by the token; where that does not fit, by
the named operations of the schedule; where they do not take place, by a search with the scenario,
strategy and seed of the token. Each line says which of them gave the answer.

Commits that give none, such as those without the scenario, are skipped. Exit codes: 0 the commit
is named, 3 skipped commits leave more than one. --good may be skipped too: it is taken as good.
""")

CORPUS: Final = _said("""\
\b
Examples:
  python -m stress corpus races.toml --add TOKEN --title 'page lost on supply'
  python -m stress corpus races.toml
  python -m stress corpus races.toml --search 1000

Replay known races from a file that is kept beside the code, each in processes of its own, and say
of each: still fails, fixed, or no longer fits. Where an edit has moved the choices of a token, its
named operations are followed, which --add writes beside the file. Where they do not all take place
either, --search N looks for the same failure in N schedules; without it, nothing is claimed.

Exit codes: 1 one still fails, 0 all are fixed, 3 none fails and one no longer fits.
""")

VERIFY: Final = _said("""\
\b
Examples:
  python -m stress verify commit-supply
  python -m stress verify 'commit*' --preemptions 2
  python -m stress verify evict-timer --revision seed

Run every interleaving that differs from the others, or every one with few preemptions. Passes only
where the search came to its end; exit code 3 where a budget ended first.
""")

MUTANTS: Final = _said("""\
\b
Examples:
  python -m stress mutants
  python -m stress mutants --only M08,M19 --seed 7
  python -m stress mutants --only M08 --strategy dfs --preemptions 1
  python -m stress mutants --matrix --json

Plant each bug of the catalogue, one at a time, and find it. Exit code 1 where one was missed or a
control was found. A search with a bound takes each mutant's own depth where none is given.

With --matrix each bug is tried on every scenario, and the scenarios that are alone in catching one
are counted: a catalogue of general scenarios has few of them.
""")

DEFECTS: Final = _said("""\
\b
Examples:
  python -m stress defects
  python -m stress defects --only L1 --seed 7

Rediscover the latent defects of the seed revision, each alone. Their controls are the same
scenarios on the fixed revision. Exit code 1 where one was missed or a control was found.
""")

AUDIT: Final = _said("""\
\b
Examples:
  python -m stress audit locks.jsonl.gz
  python -m stress audit .stress --golden model
  python -m stress audit locks.jsonl.gz --replay
  python -m stress audit suggest-order locks.jsonl.gz -o order.toml
  python -m stress audit locks.jsonl.gz --order order.toml --allow allow.toml --format sarif

Judge lock logs: the class rules on all of them as one graph, and for each run the deadlocks that it
reached or could have reached. A folder is searched.

Every finding has a tier: observed (a run did it), confirmed (--replay did it), predicted (with the
schedule that leads there), possible (nothing rules it out), latent (the order of classes alone).
What was dropped stands at the end, with its reason.
""")

BENCH: Final = _said("""\
\b
Example:
  python -m stress bench --json

The engine beside the bare hand-offs of the same schedules, and one scenario of the model with
its checks on and off, all in one run.
""")

CAMPAIGN: Final = _said("""\
\b
Examples:
  python -m stress campaign run plan.toml
  python -m stress campaign run 'commit*' --strategies portfolio,pct --seeds 0-99
  python -m stress campaign resume
  python -m stress campaign report --html campaign.html

Explore scenarios x strategies x seeds x faults in numbered parts. What each part found is in the
store the moment it is done: killed at any time, a campaign goes on where it was, and ends with the
result of an undisturbed one.
""")

CAMPAIGN_RUN: Final = _said("""\
\b
Examples:
  python -m stress campaign run plan.toml --name nightly
  python -m stress campaign run 'commit*' --strategies portfolio,pct --seeds 0-99
  python -m stress campaign run --seconds 3600 --seeds 0-9999 --jobs 2
  python -m stress campaign run plan.toml --store postgresql+psycopg://host/campaigns

Begin a campaign. A part is one scenario under one strategy with one seed; it is the same schedules
wherever it is run. The canary and the vacuous scenario run first.
""")

CAMPAIGN_RESUME: Final = _said("""\
\b
Examples:
  python -m stress campaign resume
  python -m stress campaign resume nightly --jobs 2

Run the parts that are not in the store, those that were given up included.
""")

CAMPAIGN_REPORT: Final = _said("""\
\b
Examples:
  python -m stress campaign report
  python -m stress campaign report nightly --html nightly.html

Verdicts by scenario, strategy and faults; findings by fingerprint, each with its easiest token;
what came to nothing, and why. Works while the campaign runs. The key `result` of --json does not
depend on how the campaign was run.
""")

CAMPAIGN_LIST: Final = _said("""\
\b
Example:
  python -m stress campaign list

The campaigns of a store, the newest first.
""")

CAMPAIGN_DIFF: Final = _said("""\
\b
Example:
  python -m stress campaign diff monday tuesday

Findings that appeared, are gone, or are still there, and verdicts that changed. Exit code 1 where
one appeared.
""")

CAMPAIGN_CHECK: Final = _said("""\
\b
Example:
  python -m stress campaign check nightly --parts 1,17-20

Run parts again, here, and compare each with what the store has of it. Exit code 1 where one
differs.
""")

CAMPAIGN_EXPORT: Final = _said("""\
\b
Examples:
  python -m stress campaign export nightly -o tables
  python -m stress campaign export nightly --format parquet

Write parts, findings, coverage, losses and sessions as one file each.
""")
