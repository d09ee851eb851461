"""What a recorded schedule leaves behind: events, text, tokens, lock logs."""
