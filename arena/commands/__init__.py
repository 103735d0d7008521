"""The bodies of the `arena` command, by what they are about."""
