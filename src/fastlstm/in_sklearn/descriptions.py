"""What the docstrings of the classifier and of the regressor share."""

from fastlstm.layers.recurrent import AnyClass, describe_shared

SHARED = {
    "hidden_size": """int
        Units of each layer and direction.""",
    "bidirectional": """bool
        Whether a second network reads each sequence from its end. It needs whole sequences.""",
    "dropout": """float in [0, 1)
        Between layers, and before the head.""",
    "pooling": """"last", "mean" or "max"
        What the head sees of a sequence: the output at its end, or the mean or the maximum over
        its steps. Of no concern for targets of steps.""",
    "lr": """float
        Learning rate of AdamW. Gradients are clipped to a norm of 1.""",
    "max_epochs": """int
        The most epochs of `fit`.""",
    "batch_size": """int
        Sequences of a batch.""",
    "validation_fraction": """float
        The share of the sequences that validation takes.""",
    "n_iter_no_change": """int
        How many epochs without improvement end the training. What is compared is the validation
        loss with `early_stopping`, else the training loss; with X_val and without
        `early_stopping` no epoch is left out.""",
    "tol": """float
        What is at most this much better is no improvement.""",
    "channels_first": """bool
        Whether X is (n, channels, steps), or a list of (channels, steps), as in aeon and
        sktime.""",
    "random_state": """int, RandomState or None
        Of the initial weights, the order of sequences, dropout, and the drawn validation set.""",
    "warm_start": """bool
        Whether `fit` goes on with the network, the optimizer's state and the scaling of the fit
        before.""",
    "verbose": """bool
        Whether to show the progress: see `fastlstm.Trainer`.""",
    "dtype": """"float32" or "float64"
        Of weights and computation.""",
    "threads": """int, optional
        The most threads of this estimator's fits and predictions, in place of
        `fastlstm.get_num_threads`; that of others does not change.""",
    "n_features_in_": """int
        T if X was a table (n, T), else the number of channels.""",
    "n_iter_": """int
        Epochs so far: of `fit` and `partial_fit`, and with `warm_start` of all fits.""",
    "validation_loss_curve_": """list of float, or None
        None without a validation set.""",
    "best_iteration_": """int
        The epoch, from 1, whose weights the network has: the best on the validation set, else the
        last.""",
    "model_": """Sequential
        The network. It takes and gives scaled numbers.""",
}


def describe(page: AnyClass) -> AnyClass:
    """Put the shared descriptions in place of lines "name : ..." of a class's docstring."""
    return describe_shared(page, SHARED)
