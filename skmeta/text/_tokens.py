"""Documents as sequences of token ids."""

from __future__ import annotations

from collections import Counter
from numbers import Integral
from zlib import crc32

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin, _fit_context
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.utils._param_validation import Interval
from sklearn.utils.validation import check_is_fitted

PADDING, UNKNOWN = 0, 1
N_SPECIAL = 2
#: Letters of a token, from its beginning, that n-grams are cut from: one long address
#: is not to widen every row.
_N_LETTERS = 20


class DocumentTransformer(TransformerMixin, BaseEstimator):
    """A transformer whose input is documents, not a table."""

    def __sklearn_tags__(self):
        """Documents are what is taken."""
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.two_d_array = False
        return tags


class TokenSequences(DocumentTransformer):
    r"""Documents to rows of token ids: 0 is padding, 1 a token that `fit` has not seen.

    The vocabulary is learned by `fit`, in the order of frequency. Backbones for text
    such as `TextCNN` read the rows.

    With `n_grams` each token brings the ids of its parts along, so that words can be
    known by their spelling ("transfer", "transferred"), be they of the vocabulary or
    not. Backbones read the tokens; `DualProtoNetClassifier` compares the parts as well.

    Parameters
    ----------
    max_length : int, default=64
        Tokens of a document at the most; the rest is cut off. Rows are as long as the
        longest document of `fit`, or this if it is less.
    lowercase : bool, default=True
        Whether to turn documents into lower case.
    token_pattern : str, default=r"(?u)\b\w+\b"
        What a token is, as a regular expression.
    tokenizer : callable, default=None
        Maps a document to a list of tokens, in place of `token_pattern`.
    min_df : int, default=1
        Documents that a token must be in to be in the vocabulary.
    max_features : int, default=None
        Tokens of the vocabulary at the most, the most frequent first.
    n_unknown : int, default=0
        Ids for tokens that `fit` has not seen, by their hash, from ``n_tokens_`` on:
        the same new word then has the same id, which tells classes apart that no
        training text spoke of. 0 gives all of them the id 1. The backbones of skmeta
        take ids above their table for the unknown token.
    n_grams : (int, int), default=None
        Shortest and longest character n-grams of a token, whose ends are marked as in
        FastText [1]_: ``<pin>`` has the 3-grams ``<pi``, ``pin`` and ``in>``. Only the
        first 20 letters of a token count. None leaves tokens whole.
    n_buckets : int, default=4096
        Ids for n-grams, by their hash.

    Attributes
    ----------
    vocabulary_ : dict
        Id of each token, from 2 on.
    n_tokens_ : int
        Number of ids, padding and the unknown token among them: the ``embedding`` of a
        backbone whose vectors start at random.
    max_length_ : int
        Length of the rows.

    References
    ----------
    .. [1] Bojanowski, Grave, Joulin and Mikolov. "Enriching word vectors with subword
       information", TACL 2017.

    Examples
    --------
    >>> from skmeta.text import TokenSequences
    >>> tokens = TokenSequences().fit(["my card is lost", "is my card here"])
    >>> tokens.transform(["my card was lost"])
    array([[4, 2, 1, 6]])
    >>> tokens.inverse_transform([[4, 2, 1, 0]])
    ['my card <unknown>']

    >>> parts = TokenSequences(n_grams=(3, 3)).fit(["my card", "a pin"])
    >>> parts.transform(["pin"]).shape  # up to four 3-grams of the longest token
    (1, 2, 5)
    """

    _parameter_constraints: dict = {
        "max_length": [Interval(Integral, 1, None, closed="left")],
        "lowercase": ["boolean"],
        "token_pattern": [str],
        "tokenizer": [callable, None],
        "min_df": [Interval(Integral, 1, None, closed="left")],
        "max_features": [Interval(Integral, 1, None, closed="left"), None],
        "n_unknown": [Interval(Integral, 0, None, closed="left")],
        "n_grams": [tuple, list, None],
        "n_buckets": [Interval(Integral, 1, None, closed="left")],
    }

    def __init__(
        self,
        *,
        max_length=64,
        lowercase=True,
        token_pattern=r"(?u)\b\w+\b",
        tokenizer=None,
        min_df=1,
        max_features=None,
        n_unknown=0,
        n_grams=None,
        n_buckets=4096,
    ):
        self.max_length = max_length
        self.lowercase = lowercase
        self.token_pattern = token_pattern
        self.tokenizer = tokenizer
        self.min_df = min_df
        self.max_features = max_features
        self.n_unknown = n_unknown
        self.n_grams = n_grams
        self.n_buckets = n_buckets

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None):
        """Learn the vocabulary.

        Parameters
        ----------
        X : iterable of str
            Documents.
        y : None
            Ignored.

        Returns
        -------
        self : TokenSequences
            Fitted.
        """
        self._check_n_grams()
        documents = self._split(X)
        total, within = Counter(), Counter()
        for tokens in documents:
            total.update(tokens)
            within.update(set(tokens))
        kept = [token for token in total if within[token] >= self.min_df]
        if not kept:
            raise ValueError(
                "Empty vocabulary: no document has a token"
                + (f" that is in {self.min_df} of them." if self.min_df > 1 else ".")
            )
        kept.sort(key=lambda token: (-total[token], token))
        kept = kept[: self.max_features]
        self.vocabulary_ = {token: i + N_SPECIAL for i, token in enumerate(kept)}
        self.n_tokens_ = len(kept) + N_SPECIAL
        self.max_length_ = min(self.max_length, max(map(len, documents)))
        self._n_parts = max(len(self._parts(token)) for token in kept)
        return self

    def transform(self, X):
        """Ids of the tokens of documents.

        Parameters
        ----------
        X : iterable of str
            Documents.

        Returns
        -------
        ids : int64 ndarray of shape (n_documents, max_length_)
            Padded with zeros. A document without any token is one unknown token. With
            `n_grams` the shape is ``(n_documents, max_length_, 1 + n_parts)``: each
            token, then its n-grams, as many as a token of the vocabulary has.
        """
        check_is_fitted(self)
        documents = self._split(X)
        ids = np.zeros((len(documents), self.max_length_), dtype=np.int64)
        for row, tokens in zip(ids, documents, strict=True):
            found = [self._id(token) for token in tokens[: self.max_length_]]
            found = found or [UNKNOWN]
            row[: len(found)] = found
        return ids if self.n_grams is None else self._with_parts(ids, documents)

    def inverse_transform(self, X):
        """Tokens of ids, joined by spaces.

        Parameters
        ----------
        X : int array-like of shape (n_documents, length) or (n_documents, length, n)
            Ids.

        Returns
        -------
        documents : list of str
            What is left of the documents.
        """
        check_is_fitted(self)
        X = np.asarray(X)
        X = X if X.ndim < 3 else X[..., 0]
        names = ["", "<unknown>", *self.vocabulary_]
        return [
            " ".join(
                names[i if i < len(names) else UNKNOWN] for i in row if i != PADDING
            )
            for row in X
        ]

    def _id(self, token):
        found = self.vocabulary_.get(token, UNKNOWN)
        if found == UNKNOWN and self.n_unknown:
            return self.n_tokens_ + crc32(token.encode()) % self.n_unknown
        return found

    def _check_n_grams(self):
        if self.n_grams is None:
            return
        sizes = self.n_grams
        whole = len(sizes) == 2 and all(isinstance(n, Integral) for n in sizes)
        if not whole or not 1 <= sizes[0] <= sizes[1]:
            raise ValueError(
                "n_grams must be the sizes of the shortest and the longest n-gram, at "
                f"least 1; got {self.n_grams!r}."
            )

    def _parts(self, token):
        """Ids of the n-grams of a token, behind those of all tokens."""
        if self.n_grams is None:
            return []
        marked = f"<{token[:_N_LETTERS]}>"
        shortest, longest = self.n_grams
        first = self.n_tokens_ + self.n_unknown
        return [
            first + crc32(marked[i : i + n].encode()) % self.n_buckets
            for n in range(shortest, longest + 1)
            for i in range(len(marked) - n + 1)
        ]

    def _with_parts(self, ids, documents):
        """Ids of tokens ``(n, length)`` with those of their n-grams behind them."""
        rows = np.zeros((*ids.shape, 1 + self._n_parts), dtype=ids.dtype)
        rows[..., 0] = ids
        parts = {}
        for row, tokens in zip(rows, documents, strict=True):
            for place, token in zip(row, tokens, strict=False):
                if token not in parts:
                    parts[token] = self._parts(token)[: self._n_parts]
                place[1 : 1 + len(parts[token])] = parts[token]
        return rows

    def _split(self, X):
        """Tokens of each document; scikit-learn's own analyser cuts them."""
        if isinstance(X, str):
            raise ValueError("Iterable over documents expected, a single str received.")
        analyse = CountVectorizer(
            lowercase=self.lowercase,
            token_pattern=None if self.tokenizer else self.token_pattern,
            tokenizer=self.tokenizer,
        ).build_analyzer()
        documents = list(X)
        for i, document in enumerate(documents):
            if not isinstance(document, str):
                raise TypeError(
                    f"Documents must be str; number {i} is {type(document).__name__}."
                )
        if not documents:
            raise ValueError("At least one document is needed; got none.")
        return [analyse(document) for document in documents]
