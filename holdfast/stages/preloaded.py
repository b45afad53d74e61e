"""The last import of the process that stages are forked from: what each of them would do again.

transformers compiles the names of all architectures' weights when it first loads a model, a quarter of a second.
"""

from transformers.conversion_mapping import get_checkpoint_conversion_mapping

get_checkpoint_conversion_mapping("llama")
