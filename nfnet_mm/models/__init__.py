from .backbones import NFNet, NFRegNet, NFResNet, NFStage

__all__ = ['NFNet', 'NFRegNet', 'NFResNet', 'NFStage']
