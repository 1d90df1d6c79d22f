"""The jobs that verbs run, one file per verb, and the options and checks of each job."""
