"""Two threads take the same two locks in opposite order.

    python examples/abba.py

Neither line is wrong by itself. The deadlock needs one preemption between two acquisitions; the
lock order is wrong in every schedule, also in those that end well, and is reported by lock class.
"""

from harness import LockClass, Mutex, explore, parallel

ACCOUNT = LockClass("account")
JOURNAL = LockClass("journal")


def program() -> None:
    account = Mutex("account", ACCOUNT)
    journal = Mutex("journal", JOURNAL)

    def deposit() -> None:
        with account, journal:
            pass

    def audit() -> None:
        with journal, account:
            pass

    parallel(deposit, audit)


if __name__ == "__main__":
    report = explore(program, "dfs", schedules=None, stop_at_first=False)
    print(f"{report.schedules} schedules, {report.failing}\n")
    for failure in report.failures:
        print(failure.text(), end="\n\n")
