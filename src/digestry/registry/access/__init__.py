"""Access control: users, robot tokens, outside issuers, rules, and challenges."""
