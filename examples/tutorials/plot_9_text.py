"""
Text: from word vectors to intents never seen
=============================================

A help desk sorts messages by what people want: *card lost*, *order cancelled*, *change
of address*. There are examples of some intents. New intents keep coming, with one or
two examples each, and nobody wants to train a classifier every time.

This tutorial goes the whole way: from words to vectors by Word2Vec, from vectors to a
network that reads, from there to a meta-learner that takes up a new intent without
training. It needs gensim: ``pip install 'skmeta[text]'``.
"""

# %%
# Messages
# --------
# So that this page is quick to run, the messages are generated: something is done to
# something, each in one of several words, with other words around. One message in six
# does not say what is to be done, as messages do. (Real questions to a bank are what
# :func:`~skmeta.datasets.fetch_banking77` loads.)

# sphinx_gallery_thumbnail_number = 2
import matplotlib.pyplot as plt
import numpy as np

ACTIONS = {
    "lose": "lost misplaced missing gone stolen",
    "stop": "cancel stop end close terminate",
    "change": "change update edit modify correct",
    "send": "send post mail ship forward",
    "pay": "pay settle transfer fund cover",
}
THINGS = {
    "card": "card visa mastercard plastic",
    "account": "account profile login membership",
    "order": "order parcel package delivery",
    "pin": "pin password passcode code",
    "address": "address street postcode residence",
    "bill": "bill invoice statement receipt",
}
AROUND = (
    "please hi hello my the a i want to need can you help now today with it".split()
)
rng = np.random.default_rng(0)


def message(action, thing):
    words = [str(rng.choice(thing.split()))]
    if rng.random() > 1 / 6:
        words.append(str(rng.choice(action.split())))
    for word in rng.choice(AROUND, 5):
        words.insert(rng.integers(len(words) + 1), str(word))
    return " ".join(words)


def messages(intents, n=24):
    """Messages of each intent, and the name of it."""
    texts = [
        message(ACTIONS[action], THINGS.get(thing, thing))
        for action, thing in intents
        for _ in range(n)
    ]
    names = [f"{action} {thing}" for action, thing in intents]
    return np.array(texts), np.repeat(names, n)


intents = [(action, thing) for action in ACTIONS for thing in THINGS]

# %%
# What is known, and what will come
# ---------------------------------
# Twenty of the thirty intents are known. The other ten combine actions and things that
# are known, each on its own. Four more are about things lost that no message ever spoke
# of, and that is what new intents often are.

apart = np.add.outer(range(len(ACTIONS)), range(len(THINGS))).ravel() % 3 == 0
known = [intent for intent, is_new in zip(intents, apart, strict=True) if not is_new]
new = [intent for intent, is_new in zip(intents, apart, strict=True) if is_new]
unheard = ["voucher", "warranty", "newsletter", "refund"]
new += [("lose", thing) for thing in unheard]

texts, y = messages(known)
new_texts, y_new = messages(new)
for i in (0, 30, 60):
    print(f"{y[i]:16} {texts[i]}")
print(f"{y_new[-1]:16} {new_texts[-1]}")

# %%
# Words as vectors
# ----------------
# Word2Vec gives each word a vector such that words which keep the same company have
# similar ones. :class:`~skmeta.text.Word2VecEmbedding` learns them from the known
# messages, and nothing else.

from skmeta.text import TokenSequences, Word2VecEmbedding

embed = Word2VecEmbedding(
    tokens=TokenSequences(n_unknown=200), width=32, n_epochs=60, random_state=0
)
embed.fit(texts)

# %%
# In two dimensions, by the two largest directions of variance. Nobody told Word2Vec
# that *parcel* and *package* are one thing; other words stood around both.

from sklearn.decomposition import PCA

groups = {**ACTIONS, **THINGS}
words = [word for group in groups.values() for word in group.split()]
ids = [embed.tokens_.vocabulary_[word] for word in words]
unit = embed.vectors_[ids] / np.linalg.norm(embed.vectors_[ids], axis=1, keepdims=True)
places = PCA(2, random_state=0).fit_transform(unit)

fig, ax = plt.subplots(figsize=(7, 5), layout="constrained")
colors = plt.get_cmap("tab20")(np.linspace(0, 1, len(groups)))
group_of = [name for name, group in groups.items() for _ in group.split()]
for (x, height), word, group in zip(places, words, group_of, strict=True):
    color = colors[list(groups).index(group)]
    ax.plot(x, height, "o" if group in ACTIONS else "s", color=color)
    ax.annotate(word, (x, height), (4, 2), textcoords="offset points", fontsize=8)
ax.set(
    title="Words of known messages\n(round: what is done, square: what it is done to)",
    xticks=[],
    yticks=[],
)
plt.show()

# %%
# A network that reads
# --------------------
# Messages become rows of token ids, filled up with zeros.

X, X_new = embed.tokens_.transform(texts), embed.tokens_.transform(new_texts)
print(X[0], "=", embed.tokens_.inverse_transform(X[:1])[0])

# %%
# :class:`~skmeta.modules.TextCNN` looks them up in a table of vectors, which starts
# with those of Word2Vec and is tuned in training, and lets filters slide over one, two
# or three neighbouring words. It is an ordinary Torch module inside an ordinary
# :class:`skorch.net.NeuralNet`.

import torch
from skorch import NeuralNet

from skmeta.modules import TextCNN

net = NeuralNet(
    TextCNN,
    torch.nn.CrossEntropyLoss,
    module__embedding=embed.vectors_,
    module__n_filters=32,
    module__dropout=0.2,
    optimizer=torch.optim.Adam,
    lr=2e-3,
    max_epochs=6,
    batch_size=4,
    train_split=None,
    verbose=0,
)

# %%
# Learning to learn intents
# -------------------------
# :class:`~skmeta.ProtoNetClassifier` trains the network on small exams: draw a few
# intents, show one to five messages of each, ask for the intent of others. A message
# belongs to the class whose mean it is nearest to. What the network learns is not the
# twenty intents but *what makes messages alike*, and that is of use for other intents.
#
# Labels exist only inside their exam, hence ``label_space="per_task"``.

from skmeta import DualProtoNetClassifier, ProtoNetClassifier

exam = {
    "n_ways": 8,
    "n_shots": (1, 5),
    "n_queries": 5,
    "n_episodes": 160,
    "label_space": "per_task",
    "random_state": 0,
}
proto = ProtoNetClassifier(net, **exam).fit(X, y)

# %%
# One message of each new intent is enough to adapt. Nothing is trained: ``adapt``
# computes fourteen means, and ``predict`` is ready.

first = np.arange(0, len(y_new), 24)
proto.adapt(X_new[first], y_new[first])
rest = np.setdiff1d(np.arange(len(y_new)), first)
print(f"accuracy on new intents: {proto.score(X_new[rest], y_new[rest]):.2f}")
for i in rest[[5, 200, 310]]:
    print(f"{new_texts[i]}  ->  {proto.predict(X_new[i : i + 1])[0]}")

# %%
# The words themselves
# --------------------
# What does scikit-learn alone do with the same few messages? TF-IDF and a linear
# classifier know nothing but words: *parcel* and *package* have nothing in common. In
# return they see a word like *voucher*, which the network has never met and takes for
# an unknown one.
#
# :class:`~skmeta.DualProtoNetClassifier` adds up both views. How far to trust each, for
# one message as for five, it learns from known intents that it holds out.

both = DualProtoNetClassifier(net, **exam).fit(X, y)

# %%
# Who learns fastest?
# -------------------
# One to five messages of each of the fourteen new intents, twenty draws, the same for
# everyone.

from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline


def accuracy(learn, data, n_shots):
    """Mean over draws; `learn` takes support rows and labels, and gives a predictor."""
    found = []
    for draw in range(20):
        order = np.random.default_rng(draw).permutation(24)
        rows = np.arange(len(y_new)).reshape(-1, 24)[:, order]
        support, query = rows[:, :n_shots].ravel(), rows[:, 5:].ravel()
        model = learn(data[support], y_new[support])
        found.append((model.predict(data[query]) == y_new[query]).mean())
    return np.mean(found)


words_alone = make_pipeline(TfidfVectorizer(), LogisticRegression(C=100))
shots = [1, 2, 3, 5]
curves = {
    "words alone (TF-IDF)": [accuracy(words_alone.fit, new_texts, k) for k in shots],
    "network alone (ProtoNet)": [accuracy(proto.adapt, X_new, k) for k in shots],
    "both (DualProtoNet)": [accuracy(both.adapt, X_new, k) for k in shots],
}
for name, values in curves.items():
    print(f"{name:26}", *(f"{v:.2f}" for v in values))

fig, ax = plt.subplots(figsize=(7, 4), layout="constrained")
for (name, values), style, color in zip(
    curves.items(), ("s:", "o--", "D-"), ("#D55E00", "#0072B2", "#009E73"), strict=True
):
    ax.plot(shots, values, style, color=color, label=name)
ax.axhline(1 / len(new), color="grey", lw=1)
ax.text(1, 1 / len(new) + 0.01, "guessing", color="grey")
ax.set(
    xlabel="messages of each new intent",
    ylabel="accuracy on other messages",
    xticks=shots,
    ylim=(0, 1.02),
)
ax.legend(frameon=False, loc="lower right", bbox_to_anchor=(1, 0.12))
plt.show()

# %%
# The network is far ahead after one message and learns little from more. The words need
# several messages to have seen most ways to say a thing. Together they are better than
# either, from the first message on.
#
# Where each of them fails
# ------------------------
# By kind of intent, with one message of each: known words in a new combination, or a
# thing that nobody has spoken of before.

is_unheard = np.arange(len(y_new)) >= len(y_new) - 4 * 24
rows = np.arange(len(y_new)).reshape(-1, 24)
support, query = rows[:, 0], rows[:, 5:].ravel()
for name, learn, data in (
    ("words alone (TF-IDF)", words_alone.fit, new_texts),
    ("network alone (ProtoNet)", proto.adapt, X_new),
    ("both (DualProtoNet)", both.adapt, X_new),
):
    right = learn(data[support], y_new[support]).predict(data[query]) == y_new[query]
    print(
        f"{name:26} known words {right[~is_unheard[query]].mean():.2f}   "
        f"new words {right[is_unheard[query]].mean():.2f}"
    )

# %%
# To the network the four things that nobody had spoken of are one and the same: it
# guesses among them. The words tell them apart, and know nothing of synonyms.

# %%
# From here
# ---------
# - Intents that are in use for longer collect messages: ``partial_adapt`` adds them to
#   the means; ``freeze(both)`` is a plain scikit-learn classifier with ``partial_fit``.
# - Messages that wait without a label help where they look alike: with ``refine=4``
#   those of one call to ``predict`` join the class means
#   (:doc:`the guide <../guide/text>` measures what that is worth on real intents).
# - :class:`~skmeta.modules.TextRNN` reads word by word instead, and
#   :class:`~skmeta.MAMLClassifier` adapts the whole network, word vectors included, by
#   gradient steps. Both take the place of what is above; nothing else changes.
# - Vectors of a large language model, computed once, go in place of all of this as
#   ordinary features: :doc:`the guide <../guide/text>` says how.
