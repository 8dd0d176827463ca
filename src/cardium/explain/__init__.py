"""Why a trained model decided as it did: attributions of its input, its attention weights, and how far to trust either.

opened_model.py        a trained model opened up: its score, the gradients of that score, its last maps, what is "nothing"
attribution.py         the methods, one signature for all of them and all models
attention_weights.py   what the model's own attention layers say
places.py              attribution -> which lead, which slice, which part of the picture; one line of text
faithfulness.py        whether an attribution is true of the model: tests of the methods
overlays.py, gallery.py    the pictures: attribution over input, one by one and together
opened_run.py          a trained run opened for explanation
selection.py           which records of a fold are explained and tested on
faithfulness_files.py  the tests of a run's methods, written
files.py               explains files that somebody has

Attributions say where a model looked. None of this is a clinical finding.
"""
