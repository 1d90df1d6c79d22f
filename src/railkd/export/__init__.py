"""What a student ships as: ONNX and int8 files, each proven equal or good enough, with a model card."""
