"""What is learned: metrics, and any number of classes a row."""
