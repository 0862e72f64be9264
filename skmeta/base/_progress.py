"""One bridge between skorch's epochs and scikit-learn's callbacks."""

from __future__ import annotations

from contextlib import contextmanager

from skorch.callbacks import Callback


@contextmanager
def report_progress(estimator, net):
    """Report the epochs of `net` to the callbacks set on `estimator`.

    scikit-learn calls every step of a fit a "task"; here such a step is an epoch.
    """
    if not getattr(estimator, "_skl_callbacks", None):
        yield
        return
    from sklearn.callback._callback_support import callback_management_context

    with callback_management_context(estimator):
        context = estimator._init_callback_context(max_subtasks=net.max_epochs)
        context.call_on_fit_task_begin(estimator=estimator)
        bridge = ("scikit-learn", _Epochs(estimator, context))
        net.callbacks_.append(bridge)
        try:
            yield
        finally:
            net.callbacks_.remove(bridge)
        context.call_on_fit_task_end(estimator=estimator)


class _Epochs(Callback):
    """A scikit-learn callback that asks for it stops training after an epoch."""

    def __init__(self, estimator, context):
        self.estimator = estimator
        self.context = context

    def on_epoch_begin(self, net, **kwargs):
        self.epoch = self.context.subcontext(task_name="epoch")
        self.epoch.call_on_fit_task_begin(estimator=self.estimator)

    def on_epoch_end(self, net, **kwargs):
        if self.epoch.call_on_fit_task_end(estimator=self.estimator):
            raise KeyboardInterrupt  # how skorch's callbacks end training
