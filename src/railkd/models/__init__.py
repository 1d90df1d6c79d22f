"""What touches a transformers model: checkpoints, heads, blocks, students, the distiller, inference."""
