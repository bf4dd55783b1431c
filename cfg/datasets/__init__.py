"""Known data sets: where their official files come from, and what to expect of them."""
