"""Parameter names: those of DeepMind's and timm's weights to ours, and ours to timm's."""
