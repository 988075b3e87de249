"""What a trained model finds in pictures and videos: drawn, for programs, and as a page for people."""

from .inputs import find_images, is_video
from .predictor import Prediction, Predictor
from .run import run

__all__ = ['Prediction', 'Predictor', 'find_images', 'is_video', 'run']
