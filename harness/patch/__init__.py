"""Code that nobody rewrote: the standard library's threads, locks and clocks, controlled."""
