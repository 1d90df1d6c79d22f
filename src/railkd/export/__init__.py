"""Files to ship a student in: ONNX and int8, each proven equal or good enough, with a model card."""
