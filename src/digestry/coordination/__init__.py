"""What keeps the processes of one registry out of each other's way: the protocol, and locks on files."""
