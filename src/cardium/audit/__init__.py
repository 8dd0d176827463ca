"""How much of a score on a dataset is real, asked before any model is trained. One question a module.

report.py        asks all of it and composes audit.json
survey.py        reads every distinct file once: its content's hash, its raster, pictures of it without the heart
encoder.py       vectors of all records from one light frozen backbone
duplicates.py    which files are copies, and of which file; copies.py counts them
registration.py  how alike two pictures are once one is laid on the other
probe.py         the cheap classifier, and the interval of its held-out score
optimism.py      files split at random against groups kept apart
shortcuts.py     what predicts the label without the heart; series.py says which files of a patient exist
label_issues.py  which labels are probably wrong
verdict.py       all of it in plain words; page.py shows it
"""
