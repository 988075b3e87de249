from .backbones import NFNet, NFRegNet, NFResNet

__all__ = ['NFNet', 'NFRegNet', 'NFResNet']
