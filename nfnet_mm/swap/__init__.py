"""Rewrite a config with a ResNet, of any OpenMMLab framework, for a normalizer-free network."""
