"""Folders of results: which files in them are jawloc's, and which process may write."""
