"""cardium: classifiers of cardiac images, trained, compared, promoted and served, scored for the next patient."""

__version__ = "0.1.0"
