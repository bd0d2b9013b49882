"""Who may do what: users, tokens, rules, and the challenges of those who are not known yet."""
