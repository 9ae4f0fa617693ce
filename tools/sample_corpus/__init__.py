"""The generator of the sample corpus in data/sample: a small bilingual grammar with its lexicon."""
