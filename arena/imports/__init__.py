"""Battles voted elsewhere into the store, one format a module; knows no server and no page."""
