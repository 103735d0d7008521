"""The commands of `arena` by what they are about; knows no page and no HTTP."""
