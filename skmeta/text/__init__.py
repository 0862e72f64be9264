"""From documents to what a backbone for text reads."""

from ._tokens import TokenSequences
from ._word2vec import Word2VecEmbedding

__all__ = ["TokenSequences", "Word2VecEmbedding"]
