"""The last import of the process that stages are forked from: what every one of them would do again.

Half a second a stage: transformers compiles the names of all architectures' weights when it first loads a model, and
trainers collect garbage, which looks through all that was imported.
"""

import gc

from transformers.conversion_mapping import get_checkpoint_conversion_mapping

get_checkpoint_conversion_mapping("llama")
gc.collect()
gc.freeze()
