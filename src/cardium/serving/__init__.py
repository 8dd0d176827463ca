"""Trained runs as classifiers of files: over HTTP (served_model.py) and from the command line.

from cardium import serving
serving.load_classifier(settings, "models:/cardium-cmri@champion").classify([data])

TensorFlow and MLflow are imported when a model is loaded, not with this package.
"""

from cardium.serving.classifier import Classifier
from cardium.serving.predict import load_classifier, predict_files

__all__ = ["Classifier", "load_classifier", "predict_files"]
