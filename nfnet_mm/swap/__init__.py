"""A config with a ResNet, of any OpenMMLab framework, to one with a normalizer-free network."""
