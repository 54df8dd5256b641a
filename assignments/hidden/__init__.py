"""What a hand-out does not hold: checks on numbers from the instructor's seed."""
