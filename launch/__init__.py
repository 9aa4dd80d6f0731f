"""Starting a run elsewhere: what is rendered for each target, and the command that hands it over (launch/run.py)."""
