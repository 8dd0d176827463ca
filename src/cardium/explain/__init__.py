"""Why a trained model decided as it did: attributions of its input, its attention weights, and how far to trust either.

opened_model.py        a trained model opened up: its score, the gradients of that score, its last maps, what is "nothing"
attribution.py         the methods, one signature for all of them and all models
attention_weights.py   what the model's own attention layers say
places.py              attribution -> which lead, which slice, which part of the picture; one line of text
faithfulness.py        whether an attribution is true of the model: tests of the methods
demo_truth.py          where the heart or the changed leads really are, of demo data
overlays.py            the pictures: attribution over input

Attributions say where a model looked. None of this is a clinical finding.
"""
