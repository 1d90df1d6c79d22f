"""What a verb does: one file per verb, and what a job may be asked."""
