"""Word vectors learned from the training texts, or given."""

from __future__ import annotations

from numbers import Integral
from zlib import crc32

import numpy as np
from sklearn.base import _fit_context, clone
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval
from sklearn.utils.validation import check_is_fitted

from ._tokens import UNKNOWN, DocumentTransformer, TokenSequences


class Word2VecEmbedding(DocumentTransformer):
    """Documents to series of word vectors, learned by Word2Vec [1]_ or given.

    Two ways to use it. As a step of a pipeline, its rows go to any backbone for series
    or text, and the vectors stay as they are: what was learned came from the training
    part alone, in cross-validation too. Or its ``vectors_`` are the initial
    ``embedding`` of a `TextCNN` that reads the ids of ``tokens_`` and tunes them.

    Parameters
    ----------
    vectors : mapping from str to array, default=None
        Vectors of words, such as a dict or gensim's ``KeyedVectors``; they are not
        trained, and words that they lack count as unknown. None learns vectors from
        the documents of `fit`, which needs gensim: ``pip install 'skmeta[text]'``.
    tokens : TokenSequences, default=None
        How documents become tokens; None is ``TokenSequences()``.
    width : int, default=64
        Width of learned vectors.
    window : int, default=5
        Words to either side that a word is to predict.
    n_epochs : int, default=20
        Passes over the documents.
    random_state : int, RandomState instance or None, default=None
        Seed of the training.

    Attributes
    ----------
    tokens_ : TokenSequences
        Fitted.
    vectors_ : float32 ndarray of shape (n_tokens, width)
        Vector of each id of ``tokens_``; that of padding is zero, that of the unknown
        token is the mean of all.

    References
    ----------
    .. [1] Mikolov, Sutskever, Chen, Corrado and Dean. "Distributed representations of
       words and phrases and their compositionality", NeurIPS 2013.

    Examples
    --------
    >>> from skmeta.text import Word2VecEmbedding
    >>> given = {"card": [1.0, 0.0], "lost": [0.0, 1.0]}
    >>> embed = Word2VecEmbedding(given).fit(["card lost", "card was here"])
    >>> embed.transform(["lost card"])
    array([[[0., 1.],
            [1., 0.],
            [0., 0.]]], dtype=float32)
    """

    _parameter_constraints: dict = {
        "vectors": "no_validation",
        "tokens": [TokenSequences, None],
        "width": [Interval(Integral, 1, None, closed="left")],
        "window": [Interval(Integral, 1, None, closed="left")],
        "n_epochs": [Interval(Integral, 1, None, closed="left")],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        vectors=None,
        *,
        tokens=None,
        width=64,
        window=5,
        n_epochs=20,
        random_state=None,
    ):
        self.vectors = vectors
        self.tokens = tokens
        self.width = width
        self.window = window
        self.n_epochs = n_epochs
        self.random_state = random_state

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None):
        """Learn the vocabulary and, unless they are given, the vectors of its words.

        Parameters
        ----------
        X : iterable of str
            Documents.
        y : None
            Ignored.

        Returns
        -------
        self : Word2VecEmbedding
            Fitted.
        """
        X = list(X) if not isinstance(X, str) else X
        tokens = TokenSequences() if self.tokens is None else clone(self.tokens)
        tokens.fit(X)
        known = self._learn(tokens, X) if self.vectors is None else self.vectors
        found = {i: known[t] for t, i in tokens.vocabulary_.items() if t in known}
        if not found:
            raise ValueError("No word of the documents has a vector.")
        width = len(next(iter(found.values())))
        vectors = np.zeros((tokens.n_tokens_, width), dtype=np.float32)
        mean = np.mean(list(found.values()), axis=0)
        vectors[UNKNOWN:] = mean
        for i, vector in found.items():
            vectors[i] = vector
        self.tokens_, self.vectors_ = tokens, vectors
        return self

    def transform(self, X):
        """Vectors of the words of documents.

        Parameters
        ----------
        X : iterable of str
            Documents.

        Returns
        -------
        series : float32 ndarray of shape (n_documents, max_length, width)
            Zeros behind the end of a document.
        """
        check_is_fitted(self)
        ids = self.tokens_.transform(X)
        ids = ids if ids.ndim == 2 else ids[..., 0]  # words, not their n-grams
        return self.vectors_[np.where(ids < len(self.vectors_), ids, UNKNOWN)]

    def _learn(self, tokens, X):
        """Vectors by gensim, on one thread: more would not be reproducible."""
        try:
            from gensim.models import Word2Vec
        except ImportError as error:
            raise ImportError(
                "Learning word vectors needs gensim, which is not installed. Install "
                "it by: pip install 'skmeta[text]'"
            ) from error
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        known = tokens.vocabulary_
        sentences = [[t for t in s if t in known] for s in tokens._split(X)]
        model = Word2Vec(
            sentences,
            vector_size=self.width,
            window=self.window,
            min_count=1,
            sg=1,
            workers=1,
            epochs=self.n_epochs,
            seed=seed,
            # Python's own hash of strings differs from run to run.
            hashfxn=_stable_hash,
        )
        return model.wv


def _stable_hash(text):
    return crc32(text.encode())
